"""The disk under a store: what it refuses, told so that a job waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from shared.errors import ErrorClass, WorkError


class Disk:
    """The disk under one store, as this process has met it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

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
            why = "there is no space left" if full else f"it cannot be used ({error.strerror})"
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the image store in {self._directory}: {why}; the job waits for that to be mended",
            ) from error
