"""Messages that tell a worker to look at a job. A lost message loses no work, a second one does no work twice (rule 1).

The message broker is the caller's: `send_messages` gets the `send_task` of a Celery application and its errors.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from shared.db.models import JobKind
from shared.jobs.handlers import TASKS

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobMessage:
    """One job that may be due; the message carries its id and nothing else."""

    job_id: str
    kind: JobKind


def send_messages(
    messages: Iterable[JobMessage], send_task: Callable[..., object], errors: tuple[type[Exception], ...]
) -> None:
    """Send messages until one of `errors` is raised. The sweep sends what was not sent."""
    for message in messages:
        task = TASKS[message.kind]
        try:
            send_task(task.name, args=[message.job_id], queue=task.queue, retry=False, ignore_result=True)
        except errors as error:
            log.warning("message_not_sent", job_id=message.job_id, error=type(error).__name__)
            return
