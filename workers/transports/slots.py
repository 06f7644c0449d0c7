"""Places for uploads to one registry, among all workers of this machine: each a file that whoever has it holds locked.

The kernel frees a place with its process, however that ends.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_INTERVAL_SECONDS = 0.1


@contextmanager
def upload_slot(directory: Path, host: str, number: int, wait: Callable[[float], None]) -> Iterator[None]:
    """Hold one of so many places for the length of the block.

    `wait` is called with seconds while all are taken, and may raise to end the waiting.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    while (descriptor := _taken(directory, name, number)) is None:
        wait(POLL_INTERVAL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _taken(directory: Path, name: str, number: int) -> int | None:
    for place in range(number):
        path = directory / f"uploads-{name}-{place}.lock"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
