"""What a build may use, and until when.

What a build reports to, and what can end it before it is done.
"""

import time
from dataclasses import dataclass

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.builds.log import BuildLog


@dataclass(frozen=True)
class BuildLimits:
    """What one build may use: memory in bytes, CPUs in cores, processes, wall time in seconds, log in bytes."""

    memory_bytes: int
    cpus: float
    pids: int
    seconds: float
    log_bytes: int


class Deadline:
    """The moment at which a build has used its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self._ends_at - time.monotonic())

    def check(self) -> None:
        """Raise if the time is used up.

        Raises:
            WorkError: it is (invalid: the same source would take as long again).
        """
        if self.left == 0.0:
            raise WorkError(
                ErrorClass.INVALID,
                f"the build took longer than its limit of {self._seconds:g} seconds and was ended",
            )


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
