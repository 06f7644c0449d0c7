"""Send messages from the API: each in at most two seconds; a failure is logged and does no harm (rule 1)."""

from collections.abc import Iterable
from functools import cache

from celery import Celery
from kombu.exceptions import OperationalError

from shared.jobs.dispatch import JobMessage, send_messages
from shared.settings import settings

TIMEOUT_SECONDS = 1.0
"""For connecting, and again for sending."""


@cache
def producer() -> Celery:
    app = Celery("longshore-dispatch", broker=settings().redis_url or "redis://localhost", set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_ignore_result=True,
        broker_connection_timeout=TIMEOUT_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "socket_timeout": TIMEOUT_SECONDS,
            "max_retries": 0,
            "retry_on_timeout": False,
        },
    )
    return app


def send(messages: Iterable[JobMessage]) -> None:
    """Tell the workers of jobs that may be due. The sweep sends what does not get through."""
    send_messages(messages, producer().send_task, (OperationalError, OSError))


def ping_broker() -> None:
    """Connect to Redis.

    Raises:
        kombu.exceptions.OperationalError, OSError: Redis does not respond.
    """
    with producer().connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=TIMEOUT_SECONDS)
