"""The pool's processes: forked while the parent has no database open, ended with the parent however that ends.

A process of the pool that is forked in the middle of another thread's transaction inherits SQLite's own notes of who
in this process holds the write lock, but not the thread that would give it back: every write of that process fails
with "database is locked" (sqlite.org, "How To Corrupt An SQLite Database File", section 2.6). The pool is forked
when the worker starts, and again whenever one of its processes ends.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

from shared.database import Database

PR_SET_PDEATHSIG = 1
_pool_parent = os.getpid()
"""The process that imported this first: the worker's own, since its pool is forked from it."""

_no_fork = threading.Lock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)


@contextlib.contextmanager
def opened_between_forks(database: Database) -> Iterator[Database]:
    """The database for the length of the block; whoever wants to fork waits until its connections are closed again."""
    with _no_fork:
        try:
            yield database
        finally:
            database.close()


def end_with_parent() -> None:
    """In a process of the pool: be killed when the worker ends, even where that was killed itself (prctl(2)).

    Elsewhere than on Linux nothing happens: there the pool's processes end when they next ask for work.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != _pool_parent:
            os._exit(1)
