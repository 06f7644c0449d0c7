"""Sending nudges from a worker, when an end made other jobs due."""

from collections.abc import Iterable

import structlog
from kombu.exceptions import OperationalError

from shared.jobs.nudges import JobMessage
from workers.app import celery

log = structlog.get_logger(__name__)


def send(nudges: Iterable[JobMessage]) -> None:
    """Tell the workers of due jobs. What does not get through, the sweep sends again (rule 1)."""
    for nudge in nudges:
        try:
            celery.send_task(nudge.task, args=[nudge.job_id], queue=nudge.queue, retry=False, ignore_result=True)
        except (OperationalError, OSError) as error:
            log.warning("nudge not sent; the sweep sends it later", job_id=nudge.job_id, error=type(error).__name__)
            return


def send_tick(task: str, queue: str) -> None:
    """Have a task run that is about no job; should it be lost, the next one is soon sent."""
    try:
        celery.send_task(task, queue=queue, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("tick not sent", task=task, error=type(error).__name__)
