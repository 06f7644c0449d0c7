"""Writing a file so that others see all of it or nothing, also after the power went."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import BinaryIO

from shared.errors import ErrorClass, WorkError


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn what the disk refuses into a `WorkError`.

    Raises:
        WorkError: there is no room, or the directory cannot be used (unavailable).
    """
    try:
        yield
    except OSError as error:
        why = "there is no space left" if error.errno in (ENOSPC, EDQUOT) else f"it cannot be used ({error.strerror})"
        raise WorkError(
            ErrorClass.UNAVAILABLE, f"the image store in {directory}: {why}; the job waits for that to be mended"
        ) from error


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well."""
    with written_beside(path.parent) as (file, temporary):
        yield file
        finish(file)
        temporary.replace(path)


@contextmanager
def written_beside(directory: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in `directory`, locked for as long as it is written and removed unless the block gave it another name.

    A file of this kind that nobody holds locked is left over.
    """
    path = directory / f".{uuid.uuid4().hex}.part"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield file, path
        finally:
            path.unlink(missing_ok=True)


def finish(file: BinaryIO) -> None:
    """Have the disk keep what was written."""
    file.flush()
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
            path.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # somebody writes it
        finally:
            os.close(descriptor)
