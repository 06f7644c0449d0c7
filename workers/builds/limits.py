"""What a build may use, and until when.

What a build reports to, and what can end it before it is done.
"""

from dataclasses import dataclass

from shared.cancellation import CancelToken
from workers.builds.log import BuildLog
from workers.jobs.deadline import Deadline


@dataclass(frozen=True)
class BuildLimits:
    """What one build may use: memory in bytes, CPUs in cores, processes, wall time in seconds, log in bytes."""

    memory_bytes: int
    cpus: float
    pids: int
    seconds: float
    log_bytes: int


@dataclass(frozen=True)
class BuildWatch:
    """The log of one build, the stop that somebody may ask for, and the moment when its time is up."""

    log: BuildLog
    stop: CancelToken
    deadline: Deadline

    def check(self) -> None:
        """Raise if the build must end.

        Raises:
            Stopped: the stop was asked for.
            WorkError: the time is used up (invalid).
        """
        self.stop.check()
        self.deadline.check()
