"""The time limit of a build, which also ends its calls to the engine."""

import time

from shared.errors import ErrorClass, WorkError


class Deadline:
    """The moment at which a build has used up its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._ends_at - time.monotonic())

    def check(self) -> None:
        """Raise if the deadline has passed.

        Raises:
            WorkError: it has (invalid: the same source would take as long again).

        """
        if self.left == 0.0:
            raise WorkError(
                ErrorClass.INVALID,
                f"the build took longer than its limit of {self._seconds:g} seconds and was ended",
            )
