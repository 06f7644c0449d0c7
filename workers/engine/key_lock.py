"""Lets builds on one machine that need the same base image or environment wait instead of doing the work twice."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.engine.watch import BuildWatch

LOOK_AGAIN_SECONDS = 0.2


@contextmanager
def key_lock(directory: Path | None, key: str, watch: BuildWatch) -> Iterator[None]:
    """Hold the lock of `key` while the block runs; without a directory there is none.

    The kernel releases it when the process ends, however it ends.

    Raises:
        Stopped: the stop was asked for while waiting.
        WorkError: the deadline passed while waiting (invalid).
    """
    if directory is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{key}.lock").open("w") as file:
        told = False
        while not _taken(file.fileno()):
            if not told:
                watch.log("Another build is making the same: waiting for it")
                told = True
            watch.check()
            time.sleep(LOOK_AGAIN_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
