"""The directory that a container makes its socket in, and may not write to once it has."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from shared.instances.endpoints import SOCKET
from shared.settings import settings

OPEN = 0o777
SEALED = 0o555


def socket_directory(instance_id: str) -> Path:
    """Where it is, on this machine and on the engine's, which are one."""
    return settings().resolved_serving_dir / instance_id


def make_directory(instance_id: str) -> Path:
    """An empty directory that every user may write to, below one that only ours may enter."""
    above = settings().resolved_serving_dir
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    above.chmod(0o700)  # also where somebody else made it: every user may connect to the sockets below
    remove_directory(instance_id)
    made = socket_directory(instance_id)
    made.mkdir()
    made.chmod(OPEN)
    return made


def has_socket(instance_id: str) -> bool:
    """Whether the container has made its socket.

    Raises:
        WorkError: it made something else (invalid). Until the directory is sealed that could fill this machine's disk.
    """
    made = os.listdir(socket_directory(instance_id))
    if not made:
        return False
    if made != [SOCKET] or not stat.S_ISSOCK((socket_directory(instance_id) / SOCKET).lstat().st_mode):
        raise WorkError(
            ErrorClass.INVALID,
            "the image puts something else into the directory of its socket than that: it must have Longshore's runner "
            "as its entry point",
        )
    return True


def seal_directory(instance_id: str) -> None:
    """Let nobody write there any more: it is ours, so the container's user cannot take that back.

    The runner waits for this before it starts the algorithm, which so can neither put anything in the socket's place
    nor fill this machine's disk.

    Raises:
        WorkError: something else than the socket came into it before (invalid).
    """
    socket_directory(instance_id).chmod(SEALED)
    has_socket(instance_id)


def remove_directory(instance_id: str) -> None:
    """Remove it with what is in it; harmless where there is none."""
    gone = socket_directory(instance_id)
    with suppress(FileNotFoundError):
        gone.chmod(0o700)
    shutil.rmtree(gone, ignore_errors=True)
