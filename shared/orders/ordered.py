"""What an order left behind."""

from dataclasses import dataclass, field

from shared.jobs.nudges import JobMessage
from shared.models import Build, Job


@dataclass
class Enqueued:
    """The job of a call, and the nudges to send once its transaction is committed."""

    job: Job
    nudges: list[JobMessage] = field(default_factory=list)
    build: Build | None = None
    repeated: bool = False
    """The job is an earlier order's, which this one only repeats."""
