"""Sending messages from a worker, when an end made other jobs due."""

from collections.abc import Iterable

import structlog
from kombu.exceptions import OperationalError

from shared.jobs.dispatch import JobMessage
from workers.app import celery

log = structlog.get_logger(__name__)


def send(messages: Iterable[JobMessage]) -> None:
    """Tell the workers of due jobs. What does not get through, the sweep sends again (rule 1)."""
    for job_message in messages:
        try:
            celery.send_task(
                job_message.task, args=[job_message.job_id], queue=job_message.queue, retry=False, ignore_result=True
            )
        except (OperationalError, OSError) as error:
            log.warning(
                "message not sent; the sweep sends it later", job_id=job_message.job_id, error=type(error).__name__
            )
            return


def send_tick(task: str, queue: str) -> None:
    """Have a task run that is about no job; should it be lost, the next one is soon sent."""
    try:
        celery.send_task(task, queue=queue, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("tick not sent", task=task, error=type(error).__name__)
