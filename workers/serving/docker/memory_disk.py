"""Mount a small file system in memory for the socket of an instance (mount(2), tmpfs(5)).

An instance can open files in the directory until it is sealed, and write to them later. On the machine's own disk that
would have no limit. The pages of this file system count against the memory limit of the container that writes.
"""

import ctypes
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from shared.settings import settings

MAX_BYTES = 64 * 1024
MAX_ENTRIES = 16
"""Maximum of files and directories, including the top directory. A socket needs one."""
_FILE_SYSTEM = b"tmpfs"
_NO_SUID_DEVICES_OR_PROGRAMS = 2 | 4 | 8
"""MS_NOSUID, MS_NODEV and MS_NOEXEC."""
_DETACH, _FOLLOW_NO_LINK = 2, 8
"""MNT_DETACH (also while it is in use) and UMOUNT_NOFOLLOW."""


def mount_memory_disk(directory: Path, mode: int) -> None:
    """Mount a tmpfs at a directory, with the permissions `mode`.

    Raises:
        OSError: this process may not mount file systems.
    """
    options = f"size={MAX_BYTES},nr_inodes={MAX_ENTRIES},mode={mode:o}".encode()
    if _libc().mount(_FILE_SYSTEM, os.fsencode(directory), _FILE_SYSTEM, _NO_SUID_DEVICES_OR_PROGRAMS, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))


def unmount_memory_disk(directory: Path) -> None:
    """Unmount what is mounted at a directory; no-op if nothing is."""
    while _libc().umount2(os.fsencode(directory), _DETACH | _FOLLOW_NO_LINK) == 0:
        pass


def check_mountable(parent: Path) -> None:
    """Check that file systems can be mounted below a directory.

    Raises:
        WorkError: this process may not (unavailable: an operator has to change that).
    """
    directory = Path(tempfile.mkdtemp(prefix="probe-", dir=parent))
    try:
        mount_memory_disk(directory, 0o700)
    except OSError as error:
        raise not_mountable(error) from error
    finally:
        unmount_memory_disk(directory)
        with suppress(OSError):
            directory.rmdir()


def not_mountable(error: OSError) -> WorkError:
    return WorkError(
        ErrorClass.UNAVAILABLE,
        f"The serving worker cannot mount the small file system in memory that an algorithm makes its socket in: "
        f"{error.strerror}. Without it an algorithm could fill the disk of this machine. Run the worker as root (in a "
        "container: with CAP_SYS_ADMIN, and the serving directory mounted with rshared propagation), or set "
        "LONGSHORE_SERVING_SOCKETS=disk if you trust all owners.",
    )


def sockets_warning() -> str | None:
    """Return a warning about the sockets of instances for the operator; None if there is none."""
    if settings().serving_sockets == "disk":
        return (
            "LONGSHORE_SERVING_SOCKETS=disk: an algorithm can fill the disk of this machine. Use it only if "
            "you trust all owners."
        )
    try:
        parent = settings().resolved_serving_dir
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_mountable(parent)
    except WorkError as error:
        return error.message
    except OSError as error:
        return f"LONGSHORE_SERVING_DIR cannot be used: {error}"
    return None


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
