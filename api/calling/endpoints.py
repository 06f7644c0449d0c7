"""Connecting to what runs an algorithm: a unix socket in the serving directory, or a port of the cluster.

The directory of a unix socket is the algorithm's own to write in, so what lies there is believed nothing: the entry is
opened without following a link, looked at, and connected to by its descriptor, which nobody can exchange meanwhile.
"""

import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
"""After so long without an answer a port counts as away."""
BUSY_PAUSE_SECONDS = 0.01
SERVING_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
SOCKET_NAME = "socket"
UNIX = "unix:"


class NotBegunError(Exception):
    """The call did not reach the algorithm, so it may be sent again."""


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


def connect(endpoint: str, serving_dir: Path, deadline: float) -> DeadlineSocket:
    """A connection to an endpoint, as `Serving.endpoint` has it.

    Raises:
        NotBegunError: nobody takes calls there.
        TimeoutError: the deadline came first.
    """
    try:
        if endpoint.startswith(UNIX):
            return _connect_unix(endpoint.removeprefix(UNIX), serving_dir, deadline)
        return _connect_port(endpoint, deadline)
    except TimeoutError:
        raise
    except OSError as error:
        raise NotBegunError(error.strerror or type(error).__name__) from None


def _connect_unix(serving_id: str, serving_dir: Path, deadline: float) -> DeadlineSocket:
    if not SERVING_ID.fullmatch(serving_id):
        raise NotBegunError("the endpoint names no socket")
    entry = os.open(serving_dir / serving_id / SOCKET_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(entry).st_mode):
            raise NotBegunError("something else is in the socket's place")
        return _connected(f"/proc/self/fd/{entry}", deadline)
    finally:
        os.close(entry)


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
