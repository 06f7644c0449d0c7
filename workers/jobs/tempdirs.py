"""Scratch directories of a worker: gone with the work, or when a process begins after a kill left one behind.

Who uses one holds a lock on it (flock), which ends with the process, however that ended. It is made under a hidden
name and gets its own once it is locked: whatever has that name and no lock is left over.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "longshore-scratch-"
HIDDEN_PREFIX = f".{PREFIX}"
GRACE_SECONDS = 60
"""A hidden directory younger than this may be about to be locked."""


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory for as long as the block lasts; what killed workers left is removed first.

    Raises:
        OSError: the disk takes none.
    """
    remove_left_overs()
    hidden = Path(tempfile.mkdtemp(prefix=HIDDEN_PREFIX))
    directory = hidden.with_name(hidden.name.removeprefix("."))
    descriptor = os.open(hidden, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.rename(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def remove_left_overs() -> None:
    """Remove the directories that nobody uses any more, because who did was killed."""
    parent = Path(tempfile.gettempdir())
    for directory in parent.glob(f"{PREFIX}*"):
        _remove_unless_used(directory)
    for directory in parent.glob(f"{HIDDEN_PREFIX}*"):
        _remove_unless_used(directory, older_than=GRACE_SECONDS)


def _remove_unless_used(directory: Path, *, older_than: float | None = None) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return  # gone by now, or another user's
    try:
        if older_than is None or time.time() - os.fstat(descriptor).st_mtime > older_than:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        return  # in use
    finally:
        os.close(descriptor)
