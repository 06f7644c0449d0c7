"""Temporary directories of a worker, removed with the work, or by the next process if theirs was killed.

The process that uses one holds a lock on it. The directory is made under a hidden name and renamed once it is locked:
one with its final name and no lock is abandoned.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.file_lock import lock_file, try_lock_file

PREFIX = "longshore-scratch-"
HIDDEN_PREFIX = f".{PREFIX}"
GRACE_SECONDS = 60
"""A hidden directory younger than this is kept: its process may not have locked it yet."""


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Create a directory that is removed after the block; abandoned ones are removed first.

    Raises:
        OSError: the directory cannot be made.
    """
    remove_abandoned_directories()
    hidden = Path(tempfile.mkdtemp(prefix=HIDDEN_PREFIX))
    directory = hidden.with_name(hidden.name.removeprefix("."))
    descriptor = os.open(hidden, os.O_RDONLY)
    try:
        lock_file(descriptor)
        hidden.rename(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned_directories() -> None:
    parent = Path(tempfile.gettempdir())
    for directory in parent.glob(f"{PREFIX}*"):
        _remove_unless_locked(directory)
    for directory in parent.glob(f"{HIDDEN_PREFIX}*"):
        _remove_unless_locked(directory, min_age_seconds=GRACE_SECONDS)


def _remove_unless_locked(directory: Path, *, min_age_seconds: float | None = None) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return  # already removed, or another user's
    try:
        is_old = min_age_seconds is None or time.time() - os.fstat(descriptor).st_mtime > min_age_seconds
        if is_old and try_lock_file(descriptor):
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(descriptor)
