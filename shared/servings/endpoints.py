"""Connecting to what serves: a unix socket in the serving directory, or a port of the cluster (`Serving.endpoint`)."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from shared.instances.sockets import SCHEME, DeadlineSocket, socket_entry

CONNECT_SECONDS = 5.0
"""After so long without an answer a port counts as away."""
BUSY_PAUSE_SECONDS = 0.01


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
