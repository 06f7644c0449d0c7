"""Connecting to what serves: a unix socket in the serving directory, or a port of the cluster (`Serving.endpoint`).

The sockets of what runs on this machine's engine: `ID/socket` below the serving directory.

What runs can be hostile, and its socket lies in a directory that it could once write to. So the entry itself is opened,
never what it points to, and what was looked at is what is connected to.
"""

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SOCKET = "socket"
SCHEME = "unix:"
CONNECT_SECONDS = 5.0
"""After so long without an answer a port counts as away."""
BUSY_PAUSE_SECONDS = 0.01


def endpoint_of(instance_id: str) -> str:
    """How a serving's row names its socket."""
    return f"{SCHEME}{instance_id}"


@contextmanager
def socket_entry(serving_directory: Path, instance_id: str) -> Iterator[str]:
    """A path that leads to the socket of what serves and to nothing else, for the length of the block (proc(5)).

    Raises:
        OSError: there is none (ENOENT), or what is there is no socket (ENOTSOCK): a link, say, that leads elsewhere.
    """
    path = serving_directory / instance_id / SOCKET
    entry = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(entry).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        yield f"/proc/self/fd/{entry}"
    finally:
        os.close(entry)


class DeadlineSocket(socket.socket):
    """A socket with one deadline for everything that is sent and received: a trickle of bytes does not prolong it."""

    deadline: float = 0.0
    """On the monotonic clock, in seconds."""

    def sendall(self, *arguments: Any) -> None:
        """Send all before the deadline; TimeoutError otherwise."""
        self.settimeout(self._left())
        super().sendall(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        """Receive before the deadline; TimeoutError otherwise. A response is read through this."""
        self.settimeout(self._left())
        return super().recv_into(*arguments)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def connect(endpoint: str, serving_directory: Path, *, seconds: float) -> DeadlineSocket:
    """A connection on which there are so many seconds for everything, this included.

    Raises:
        OSError: nobody takes calls there, or not in time (TimeoutError).
    """
    deadline = time.monotonic() + seconds
    if endpoint.startswith(SCHEME):
        with socket_entry(serving_directory, endpoint.removeprefix(SCHEME)) as path:
            return _connected(path, deadline)
    return _connect_port(endpoint, deadline)


def _connected(path: str, deadline: float) -> DeadlineSocket:
    """Connect; again while the line of those who wait to be accepted is full, of which EAGAIN tells (unix(7))."""
    while True:
        connection = DeadlineSocket(socket.AF_UNIX)
        try:
            connection.deadline = deadline
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(path)
        except BlockingIOError:
            connection.close()
            if time.monotonic() + BUSY_PAUSE_SECONDS >= deadline:
                raise TimeoutError("no place came free") from None
            time.sleep(BUSY_PAUSE_SECONDS)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _connect_port(endpoint: str, deadline: float) -> DeadlineSocket:
    address = urlsplit(endpoint)
    left = min(CONNECT_SECONDS, deadline - time.monotonic())
    if left <= 0:
        raise TimeoutError("the time was over")
    plain = socket.create_connection((address.hostname or "", address.port or 80), timeout=left)
    connection = DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    connection.deadline = deadline
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
