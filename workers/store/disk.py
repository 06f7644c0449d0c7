"""The disk under a store: what it refuses, told so that a job waits for it, and when there should be more room."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from shared.errors import ErrorClass, WorkError

LEFT_AT_THE_LIMIT = 0.9
"""Of the limit, when it was passed: down to the limit itself, every build after it would pay for a collection."""
LEFT_ON_A_FULL_DISK = 0.8
"""Of what is there, when the disk had no room: the job that wanted some comes back in a moment."""


class Disk:
    """The disk under one store, as this process has met it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.grown = True
        """Whether this process has added anything since it was looked at last: at first nobody has looked."""
        self.full = False
        """Whether there was no room for something since then."""

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the disk refuses into a `WorkError`; nothing else may be asked for in the block.

        Raises:
            WorkError: there is no room, or the directory cannot be used (unavailable).
        """
        try:
            yield
        except OSError as error:
            full = error.errno in (ENOSPC, EDQUOT)
            self.full = self.full or full
            why = "there is no space left" if full else f"it cannot be used ({error.strerror})"
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the image store in {self._directory}: {why}; the job waits for that to be mended",
            ) from error

    def goal_bytes(self, limit_bytes: int, size_bytes: Callable[[], int]) -> int | None:
        """To how many bytes a store of `size_bytes` should be brought now, which is asked only where that may be."""
        full, grown = self.full, self.grown
        if not (full or grown):
            return None
        self.full = self.grown = False
        size = size_bytes()
        if full:
            return int(LEFT_ON_A_FULL_DISK * min(size, limit_bytes))
        return int(LEFT_AT_THE_LIMIT * limit_bytes) if size > limit_bytes else None
