"""Where the runner listens: a TCP port, on IPv6 and IPv4 where both are there, and a unix socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import time

BACKLOG = 128
SEALING_SECONDS = 10.0
"""How long a socket's directory may stay writable, where it is to be sealed."""
POLL_INTERVAL_SECONDS = 0.01


def tcp_listener(port: int) -> socket.socket:
    """Listen on every address.

    Raises:
        OSError: the port cannot be had.
    """
    if socket.has_dualstack_ipv6():
        # A machine may know IPv6 and have it switched off; only then is IPv4 alone what was meant.
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - a container's port is meant to be reached


def unix_listener(path: str) -> socket.socket:
    """Listen on a unix socket that every user may connect to, in place of one that a former process left.

    Raises:
        OSError: the path cannot be had, or is something other than a socket.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"LONGSHORE_SOCKET: {path} exists and is no socket")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - whoever may reach the directory may call; before anybody can connect
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def wait_until_sealed(path: str, stop_asked: int) -> bool:
    """Wait until this user cannot write into the socket's directory any more; False where a stop was asked for first.

    From then on nothing that runs as this user can put a link or another socket in this one's place, or fill the
    disk of whoever lent the directory.

    Raises:
        TimeoutError: it can still be written after `SEALING_SECONDS`.
    """
    directory = os.path.dirname(path)
    deadline = time.monotonic() + SEALING_SECONDS
    while os.access(directory, os.W_OK):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"LONGSHORE_SOCKET_SEALED is 1, and {directory} can still be written after {SEALING_SECONDS:g} seconds"
            )
        if select.select([stop_asked], [], [], POLL_INTERVAL_SECONDS)[0]:
            return False
    return True
