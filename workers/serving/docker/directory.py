"""Make, seal and remove the directory in which a container makes its socket."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from shared.instances.endpoints import SOCKET
from shared.settings import settings

OPEN_MODE = 0o777
SEALED_MODE = 0o555


def socket_directory(instance_id: str) -> Path:
    """Return the directory's path, which is the same for this process and for the engine."""
    return settings().resolved_serving_dir / instance_id


def make_directory(instance_id: str) -> Path:
    """Make an empty directory that every user may write to, in one that only this process's user may enter."""
    parent = settings().resolved_serving_dir
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent.chmod(0o700)  # also if it existed: every user may connect to the sockets in it
    remove_directory(instance_id)
    directory = socket_directory(instance_id)
    directory.mkdir()
    directory.chmod(OPEN_MODE)
    return directory


def has_socket(instance_id: str) -> bool:
    """Return whether the container has made its socket.

    Raises:
        WorkError: it made something else (invalid), which could fill this machine's disk until the directory is sealed.
    """
    directory = socket_directory(instance_id)
    entries = os.listdir(directory)
    if not entries:
        return False
    if entries != [SOCKET] or not stat.S_ISSOCK((directory / SOCKET).lstat().st_mode):
        message = (
            "The image writes something other than a socket into the directory of its socket: it must have Longshore's "
            "runner as its entry point."
        )
        raise WorkError(ErrorClass.INVALID, message)
    return True


def seal_directory(instance_id: str) -> None:
    """Make the directory read-only. The container's user does not own it, so it cannot undo that.

    The runner waits for this before it starts the algorithm. So the algorithm can neither replace the socket nor fill
    this machine's disk.

    Raises:
        WorkError: the directory has something other than the socket in it (invalid).
    """
    socket_directory(instance_id).chmod(SEALED_MODE)
    has_socket(instance_id)


def remove_directory(instance_id: str) -> None:
    """Remove the directory and its content; no-op if it does not exist."""
    directory = socket_directory(instance_id)
    with suppress(FileNotFoundError):
        directory.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
