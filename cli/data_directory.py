"""Create the data directory of one machine, and lock it for one `longshore up` at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared.file_lock import try_lock_file
from shared.settings import SettingsError

LOCK_FILE = "lock"


def create_private(directory: Path) -> Path:
    """Create the directory if it does not exist, for its owner only, and return its absolute path.

    Raises:
        SettingsError: it cannot be created or written.
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
    """Hold the lock of the directory while the block runs. The kernel releases it when the process ends.

    Raises:
        SettingsError: another `longshore up` holds it.
    """
    with (directory / LOCK_FILE).open("a+") as file:
        if not try_lock_file(file):
            file.seek(0)
            raise SettingsError(
                f"Longshore runs in {directory} already (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another --data-dir."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
