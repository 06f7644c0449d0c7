"""Lets builds on one machine that need the same base image or environment wait instead of doing the work twice."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_INTERVAL_SECONDS = 0.2


@contextmanager
def key_lock(directory: Path | None, key: str, say: Callable[[str], None], check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `key` while the block runs; without a directory there is none.

    While somebody else has it `check` is called again and again, and whatever it raises ends the waiting. The kernel
    releases the lock when the process ends, however it ends.
    """
    if directory is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{key}.lock").open("w") as file:
        told = False
        while not _taken(file.fileno()):
            if not told:
                say("Another build is making the same: waiting for it")
                told = True
            check()
            time.sleep(POLL_INTERVAL_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
