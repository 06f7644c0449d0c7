"""What an order left behind."""

from dataclasses import dataclass, field

from shared.jobs.nudges import Nudge
from shared.models import Build, Job


@dataclass
class Ordered:
    """The job of a call, and the nudges to send once its transaction is committed."""

    job: Job
    nudges: list[Nudge] = field(default_factory=list)
    build: Build | None = None
    repeated: bool = False
    """The job is an earlier order's, which this one only repeats."""
