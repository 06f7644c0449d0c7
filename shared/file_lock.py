"""Locks between the processes of one machine, on files (flock(2)).

A lock belongs to an open file. The kernel releases it when the file is closed, so also when the process is killed.
Files stay when their lock is released: to remove one while another process waits for it would give the lock twice.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

POLL_INTERVAL_SECONDS = 0.1


def lock_file(file: int | IO[Any], *, shared: bool = False) -> None:
    """Lock an open file or directory; wait while another process holds a lock that excludes this one."""
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock_file(file: int | IO[Any]) -> bool:
    """Lock an open file or directory exclusively; return False if it is locked already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def file_lock(path: Path, *, shared: bool = False, create: bool = True) -> Iterator[None]:
    """Hold the lock of a file while the block runs; wait for it if necessary.

    Raises:
        FileNotFoundError: the directory does not exist; or the file does not, and `create` is False.
    """
    descriptor = _open(path, create=create)
    try:
        lock_file(descriptor, shared=shared)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_file_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of a file while the block runs; give False, and hold nothing, if it is locked already."""
    descriptor = _open(path)
    try:
        yield try_lock_file(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def poll_file_lock(
    paths: Sequence[Path], check: Callable[[], None], *, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lock of the first of these files that is free while the block runs; their directory is made if missing.

    If all are locked, `on_wait` is called once. Then `check` is called before each new attempt; it may raise to end the
    wait.
    """
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    while (descriptor := _lock_first_free(paths)) is None:
        if on_wait is not None:
            on_wait()
            on_wait = None
        time.sleep(POLL_INTERVAL_SECONDS)
        check()
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_first_free(paths: Sequence[Path]) -> int | None:
    for path in paths:
        descriptor = _open(path)
        if try_lock_file(descriptor):
            return descriptor
        os.close(descriptor)
    return None


def _open(path: Path, *, create: bool = True) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
