"""Connecting to what runs an algorithm: a unix socket in the serving directory, or a port of the cluster."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from shared.servings.sockets import SCHEME, DeadlineSocket, socket_entry

CONNECT_SECONDS = 5.0
"""After so long without an answer a port counts as away."""
BUSY_PAUSE_SECONDS = 0.01


class NotBegunError(Exception):
    """The call did not reach the algorithm, so it may be sent again."""


def connect(endpoint: str, serving_dir: Path, deadline: float) -> DeadlineSocket:
    """A connection to an endpoint, as `Serving.endpoint` has it.

    Raises:
        NotBegunError: nobody takes calls there.
        TimeoutError: the deadline came first.
    """
    try:
        if endpoint.startswith(SCHEME):
            return _connect_unix(endpoint.removeprefix(SCHEME), serving_dir, deadline)
        return _connect_port(endpoint, deadline)
    except TimeoutError:
        raise
    except OSError as error:
        raise NotBegunError(error.strerror or type(error).__name__) from None


def _connect_unix(serving_id: str, serving_dir: Path, deadline: float) -> DeadlineSocket:
    with socket_entry(serving_dir, serving_id) as path:
        return _connected(path, deadline)


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
                raise TimeoutError from None
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
        raise TimeoutError
    try:
        plain = socket.create_connection((address.hostname or "", address.port or 80), timeout=left)
    except TimeoutError:
        raise NotBegunError("no answer to the connection") from None
    connection = DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    connection.deadline = deadline
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
