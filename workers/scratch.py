"""Scratch directories of a worker: gone with the work, or with the next work when a kill left one behind.

Who uses one holds a lock on it (flock), which ends with the process, however that ended.
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
YOUNG_SECONDS = 60
"""A directory younger than this may be about to be locked."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for as long as the block lasts; what killed workers left is removed first.

    Raises:
        OSError: the disk takes none.
    """
    _remove_left_overs(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as directory:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(directory)
        finally:
            os.close(descriptor)


def _remove_left_overs(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone by now, or another user's
        try:
            if time.time() - os.fstat(descriptor).st_mtime > YOUNG_SECONDS:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            continue  # in use
        finally:
            os.close(descriptor)
