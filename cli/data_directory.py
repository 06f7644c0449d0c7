"""The data directory of one machine: private, and run in by one `longshore up` at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shared.settings import SettingsError

LOCK_FILE = "lock"


def make_private(directory: Path) -> Path:
    """Make the directory if it is new, for its owner only; its absolute path.

    Raises:
        SettingsError: it cannot be made or written.
    """
    directory = directory.absolute()
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise SettingsError(f"LONGSHORE_DATA_DIR: {directory} cannot be used: {error.strerror}") from None
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory for the length of the block. The kernel lets go of it with the process, however that ends.

    Raises:
        SettingsError: another `longshore up` runs in it.
    """
    with (directory / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SettingsError(
                f"Longshore runs in {directory} already (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another --data-dir."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
