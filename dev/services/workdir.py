"""The directory of the services of one process: removed at the end, and after a crash by the next run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.services.mounts import unmount_below
from dev.services.processes import signals_deferred
from shared.file_lock import lock_file, try_lock_file

_PREFIX = "longshore-services-"


def _parent() -> Path:
    # Not the temporary directory: it is often in memory, where an engine's overlay mounts fail. Not the checkout:
    # it is often below a home directory that PostgreSQL's user may not enter.
    return Path(os.environ.get("LONGSHORE_DEV_DIR", "/var/tmp"))  # noqa: S108 - the entries come from mkdtemp


@contextmanager
def services_directory() -> Iterator[Path]:
    """Make a directory on disk for the services of this process, and remove it at the end.

    It is below `LONGSHORE_DEV_DIR`, by default /var/tmp, and can be entered by the users that services run as. First,
    directories of crashed runs are removed: those whose lock is free.
    """
    _remove_abandoned()
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=_parent()))
    lock = os.open(hidden, os.O_RDONLY)
    lock_file(lock)
    hidden.chmod(0o711)
    # Renamed when it is locked: other runs remove only directories with the final name.
    directory = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
    try:
        yield directory
    finally:
        with signals_deferred():
            remove_tree(directory)
            os.close(lock)


def remove_tree(directory: Path) -> None:
    """Unmount everything below a directory, and remove it."""
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned() -> None:
    for directory in _parent().glob(f"{_PREFIX}*"):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue  # another user's, or removed meanwhile
        try:
            if os.fstat(lock).st_uid == os.geteuid() and try_lock_file(lock):
                remove_tree(directory)
        finally:
            os.close(lock)
