"""No fork while the parent process has the database open.

A process of the pool that is forked in the middle of another thread's transaction inherits SQLite's own notes of who
in this process holds the write lock, but not the thread that would give it back: every write of that process fails
with "database is locked" (sqlite.org, "How To Corrupt An SQLite Database File", section 2.6). The pool is forked
when the worker starts, and again whenever one of its processes ends.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

from shared.database import Database

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
