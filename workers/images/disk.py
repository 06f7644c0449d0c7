"""The disk of a store: its errors as `WorkError`, when to free space, and files that are written atomically."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from io import FileIO
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from shared.file_lock import lock_file, try_lock_file

LIMIT_TARGET = 0.9
"""Fraction of the limit to which a store above it is reduced. With 1, every later build would cost a collection."""
FULL_DISK_TARGET = 0.8
"""Fraction of its size to which a store on a full disk is reduced: the job that found no space is retried soon."""
GRACE_SECONDS = 60
"""An unfinished file younger than this is kept: its writer may not have locked it yet."""


class Disk:
    """The disk of one store, and what this process knows about its space."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.has_grown = True
        """Whether this process has added a blob since the size was last checked; true at first."""
        self._was_full = False

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn every `OSError` of the block into a `WorkError`; the block must do nothing but use the disk.

        Raises:
            WorkError: the disk is full, or the directory cannot be used (unavailable).

        """
        try:
            yield
        except OSError as error:
            is_full = error.errno in (ENOSPC, EDQUOT)
            self._was_full = self._was_full or is_full
            reason = "there is no space left" if is_full else f"it cannot be used ({error.strerror})"
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the image store in {self._directory}: {reason}; the job waits until that is fixed",
            ) from error

    def target_bytes(self, limit_bytes: int, size_bytes: Callable[[], int]) -> int | None:
        """Return the number of bytes to which the store should be reduced now, if any.

        `size_bytes` is called only if the store may have become too large since the last call.
        """
        was_full, has_grown = self._was_full, self.has_grown
        if not (was_full or has_grown):
            return None
        self._was_full = self.has_grown = False
        size = size_bytes()
        if was_full:
            return int(FULL_DISK_TARGET * min(size, limit_bytes))
        return int(LIMIT_TARGET * limit_bytes) if size > limit_bytes else None


def replace_file(path: Path, content: bytes) -> None:
    """Create or replace a file atomically."""
    with temporary_file(path.parent) as (file, temporary):
        write_all(file, content)
        os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def temporary_file(directory: Path) -> Iterator[tuple[FileIO, Path]]:
    """Create a file in `directory`, locked while it is written, and removed unless the block renames it.

    A file of this kind that no process has locked is abandoned. It has no buffer: a write that failed must not be
    repeated when the file is closed, and fail there.
    """
    path = directory / f".{uuid.uuid4().hex}.part"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            lock_file(file)
            yield file, path
        finally:
            with suppress(OSError):  # `remove_abandoned_files` removes it then
                path.unlink(missing_ok=True)


def write_all(file: FileIO, content: bytes) -> int:
    """Write all bytes, although one system call may take only a part of them; return their number."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    return len(content)


def remove_abandoned_files(directory: Path) -> None:
    for path in directory.glob(".*.part"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # it has just been finished
        try:
            if try_lock_file(descriptor) and time.time() - os.fstat(descriptor).st_mtime > GRACE_SECONDS:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
