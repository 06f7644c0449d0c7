"""The data directory of one machine: private, and run in by one `longshore up` at a time.

Ports of one machine: the public one, which must be free, and two private ones.
"""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from shared.file_lock import try_lock_file
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


PRIVATE_PORTS = range(20_000, 32_000)
"""Below the range from which the kernel gives ports to outgoing connections (Linux: 32768 and above)."""


def require_free(host: str, port: int) -> int:
    """The port, or where that is 0 one that is free at this moment.

    Raises:
        SettingsError: somebody listens on it, or the address is none of this machine's.
    """
    if port == 0:
        return free_port(host)
    try:
        with _bound(host, port):
            return port
    except OSError as error:
        raise SettingsError(
            f"LONGSHORE_HOST, LONGSHORE_PORT: cannot listen on {host}:{port}: {error.strerror}; "
            "choose another port with --port."
        ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens at this moment.

    Raises:
        SettingsError: none was found.
    """
    for port in random.sample(PRIVATE_PORTS, 200):
        try:
            with _bound(host, port):
                return port
        except OSError:
            continue
    raise SettingsError(f"LONGSHORE_HOST: no free port found on {host}.")


def _bound(host: str, port: int) -> socket.socket:
    trial = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        trial.bind((host, port))
    except BaseException:
        trial.close()
        raise
    return trial
