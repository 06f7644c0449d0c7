"""Writing a file so that others see all of it or nothing, also after the power went."""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

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
