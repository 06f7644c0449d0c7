"""Sending messages from the API: by task name, in at most two seconds, and harmless when it fails (rule 1)."""

from collections.abc import Iterable
from functools import cache

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from shared.jobs.dispatch import JobMessage
from shared.settings import settings

log = structlog.get_logger(__name__)

SECONDS = 1.0
"""For connecting, and again for sending."""


@cache
def producer() -> Celery:
    """The sender of this process, by its settings."""
    app = Celery("longshore-dispatch", broker=settings().redis_url or "redis://localhost", set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_ignore_result=True,
        broker_connection_timeout=SECONDS,
        broker_transport_options={
            "socket_connect_timeout": SECONDS,
            "socket_timeout": SECONDS,
            "max_retries": 0,
            "retry_on_timeout": False,
        },
    )
    return app


def send(messages: Iterable[JobMessage]) -> None:
    """Tell the workers of due jobs. What does not get through, the sweep sends again."""
    for job_message in messages:
        try:
            producer().send_task(
                job_message.task, args=[job_message.job_id], queue=job_message.queue, retry=False, ignore_result=True
            )
        except (OperationalError, OSError) as error:
            log.warning(
                "message not sent; the sweep sends it later", job_id=job_message.job_id, error=type(error).__name__
            )
            return


def ping_broker() -> None:
    """Ask Redis for an answer.

    Raises:
        kombu.exceptions.OperationalError, OSError: it gave none.
    """
    with producer().connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=SECONDS)
