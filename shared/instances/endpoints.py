"""Connect to an instance (`Instance.endpoint`): a unix socket below the serving directory, or a port of the cluster.

The socket of an instance on this machine's engine is `ID/socket`. An instance can be hostile, and could once write to
the directory of its socket. So links are not followed, and the file that was checked is the one that is connected to.
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

from typing_extensions import override

SOCKET = "socket"
SCHEME = "unix:"
CONNECT_TIMEOUT_SECONDS = 5.0
BUSY_POLL_INTERVAL_SECONDS = 0.01


def endpoint_of(instance_id: str) -> str:
    return f"{SCHEME}{instance_id}"


@contextmanager
def socket_entry(serving_directory: Path, instance_id: str) -> Iterator[str]:
    """Yield a path that leads to the socket of an instance and to nothing else (proc(5)).

    Raises:
        OSError: there is no file (ENOENT), or it is no socket (ENOTSOCK), for example a link that leads elsewhere.
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
    """A socket with one deadline for all that is sent and received, however slowly the bytes come."""

    deadline: float = 0.0
    """On the monotonic clock, in seconds."""

    @override
    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self._left())
        super().sendall(*arguments)

    @override
    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self._left())
        return super().recv_into(*arguments)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def connect(endpoint: str, serving_directory: Path, *, seconds: float) -> DeadlineSocket:
    """Connect; `seconds` are the limit for all that is done on the connection, from now on.

    Raises:
        OSError: the instance takes no calls, or not in time (TimeoutError).
    """
    deadline = time.monotonic() + seconds
    if endpoint.startswith(SCHEME):
        with socket_entry(serving_directory, endpoint.removeprefix(SCHEME)) as path:
            return _connected(path, deadline)
    return _connect_port(endpoint, deadline)


def _connected(path: str, deadline: float) -> DeadlineSocket:
    """Connect, and retry while the backlog of the socket is full, which EAGAIN says (unix(7))."""
    while True:
        connection = DeadlineSocket(socket.AF_UNIX)
        try:
            connection.deadline = deadline
            connection.settimeout(CONNECT_TIMEOUT_SECONDS)
            connection.connect(path)
        except BlockingIOError:
            connection.close()
            if time.monotonic() + BUSY_POLL_INTERVAL_SECONDS >= deadline:
                raise TimeoutError("the backlog of the socket stayed full") from None
            time.sleep(BUSY_POLL_INTERVAL_SECONDS)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _connect_port(endpoint: str, deadline: float) -> DeadlineSocket:
    address = urlsplit(endpoint)
    left = min(CONNECT_TIMEOUT_SECONDS, deadline - time.monotonic())
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    plain = socket.create_connection((address.hostname or "", address.port or 80), timeout=left)
    connection = DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    connection.deadline = deadline
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
