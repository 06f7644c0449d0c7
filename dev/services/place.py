"""Where parts keep their files: a directory on disk that is removed at the end, and after a crash by the next run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.services.mounts import unmount_below
from dev.services.processes import signals_deferred
from shared.file_lock import lock_file, try_lock_file

_PREFIX = "longshore-parts-"


def _parent() -> Path:
    # Not the temporary directory: that is often memory, on which an engine's overlay mounts fail. Not the checkout:
    # it is often below a home that PostgreSQL's user may not enter.
    return Path(os.environ.get("LONGSHORE_PARTS_DIR", "/var/tmp"))  # noqa: S108 - the entries come from mkdtemp


@contextmanager
def parts_directory() -> Iterator[Path]:
    """A new directory on disk for the parts of this process, removed at the end.

    Below `LONGSHORE_PARTS_DIR`, by default /var/tmp. Its subdirectories can be entered by the users that services run
    as. What crashed runs left behind is removed first: a directory whose lock nobody holds.
    """
    _remove_abandoned()
    nameless = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=_parent()))
    lock = os.open(nameless, os.O_RDONLY)
    lock_file(lock)
    nameless.chmod(0o711)
    # Only now does it get the name by which another run's clearing up looks for it.
    directory = nameless.rename(nameless.with_name(nameless.name.removeprefix(".")))
    try:
        yield directory
    finally:
        with signals_deferred():
            remove_tree(directory)
            os.close(lock)


def remove_tree(directory: Path) -> None:
    """Unmount what is mounted below a directory and remove it."""
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned() -> None:
    for directory in _parent().glob(f"{_PREFIX}*"):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue  # somebody else's, or gone meanwhile
        try:
            if os.fstat(lock).st_uid == os.geteuid() and try_lock_file(lock):
                remove_tree(directory)
        finally:
            os.close(lock)
