"""What a build may use, and until when."""

import time
from dataclasses import dataclass

from shared.errors import ErrorClass, WorkError


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
