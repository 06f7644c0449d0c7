"""The disk under a store: what it refuses, told so that a job waits for it, and when there should be more room.

Writing a file so that others see all of it or nothing, also after the power went.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from io import FileIO
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


LEFT_SECONDS = 60
"""What was written so short a time ago is not left over: its writer may not have locked it yet."""


def replace_file(path: Path, content: bytes) -> None:
    """Let a file have this content, whether there was one or not."""
    with written_beside(path.parent) as (file, temporary):
        write_all(file, content)
        finish(file)
        temporary.replace(path)


@contextmanager
def written_beside(directory: Path) -> Iterator[tuple[FileIO, Path]]:
    """A new file in `directory`, locked for as long as it is written and removed unless the block gave it another name.

    A file of this kind that nobody holds locked is left over. It has no buffer: what could not be written must not be
    tried once more when it is closed, and fail there.
    """
    path = directory / f".{uuid.uuid4().hex}.part"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield file, path
        finally:
            with suppress(OSError):  # then it is left over
                path.unlink(missing_ok=True)


def write_all(file: FileIO, content: bytes) -> int:
    """Write everything, also where the system takes a part at a time; gives the number of bytes."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    return len(content)


def finish(file: FileIO) -> None:
    """Have the disk keep what was written."""
    os.fsync(file.fileno())


def remove_left_overs(directory: Path) -> None:
    """Remove the unfinished files of processes that are gone."""
    for path in directory.glob(".*.part"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # finished just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(descriptor).st_mtime > LEFT_SECONDS:
                path.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # somebody writes it
        finally:
            os.close(descriptor)
