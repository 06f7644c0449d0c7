"""Send messages from a worker."""

from collections.abc import Iterable

import structlog
from kombu.exceptions import OperationalError

from shared.jobs.dispatch import JobMessage, send_messages
from shared.jobs.queues import Queues
from workers.app import celery

log = structlog.get_logger(__name__)

BROKER_ERRORS = (OperationalError, OSError)


def send(messages: Iterable[JobMessage]) -> None:
    """Tell the workers of jobs that may be due. The sweep sends what does not get through."""
    send_messages(messages, celery.send_task, BROKER_ERRORS)


def send_load_check(job_id: str) -> None:
    """Have the image of a build checked after its job, behind the builds that wait already.

    If the message is lost, the sweep says that the check was skipped.
    """
    try:
        celery.send_task("longshore.load_check", args=[job_id], queue=Queues.BUILDS, retry=False, ignore_result=True)
    except BROKER_ERRORS as error:
        log.warning("load_check_not_sent", job_id=job_id, error=type(error).__name__)


def send_periodic(task: str, queue: str) -> None:
    """Have a task run that is about no job. A lost message does no harm, because the task is sent again soon."""
    try:
        celery.send_task(task, queue=queue, retry=False, ignore_result=True)
    except BROKER_ERRORS as error:
        log.warning("periodic_task_not_sent", task=task, error=type(error).__name__)
