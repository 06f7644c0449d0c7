"""Connections of git clients. One thread per process detects which of them have left or stalled.

The thread of a request cannot: it reads the body, waits for git, or writes the response. Unread bytes of a client do
not hide that it has left (EPOLLRDHUP, epoll_ctl(2)). The gateway closes its own connection when its client leaves.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from api.errors import ApiError, Code
from shared.errors import LongshoreError
from shared.settings import settings

POLL_INTERVAL_SECONDS = 1.0
CHUNK_BYTES = 64 * 1024
"""What is read or written at a time; the client's minimum rate is applied to each."""


class ClientLeftError(LongshoreError):
    """Raised when the client has closed the connection, or does not read the response."""


class ClientConnection:
    """The connection of one request. Its socket is None if the WSGI server does not expose it, as in some tests."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._socket = connection
        self._receiving_since: float | None = None
        self._sending_since: float | None = None
        self._on_failure: Callable[[], None] = lambda: None
        self._is_read = True
        self.failure: LongshoreError | None = None
        """Why the request cannot be completed: `ClientLeftError`, or an `ApiError` if the client can still be told."""

    def check(self) -> None:
        """Raise if the client has left.

        Raises:
            ClientLeftError: it has closed its side of the connection.
        """
        if self._socket is None:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        if poll.poll(0):
            raise ClientLeftError("The client has left.")

    @contextmanager
    def watched(self, on_failure: Callable[[], None]) -> Iterator[None]:
        """Call `on_failure` once, from another thread, when the client leaves or stalls during the block."""
        self._on_failure = on_failure
        if self._socket is None:
            yield
            return
        watch, descriptor = _watch_of(os.getpid()), self._socket.fileno()
        watch.add(descriptor, self)
        try:
            yield
        finally:
            watch.remove(descriptor)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Mark a block that waits for the client to send a chunk."""
        self._receiving_since = time.monotonic()
        try:
            yield
        finally:
            self._receiving_since = None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Mark a block that waits for the client to read a chunk."""
        self._sending_since = time.monotonic()
        try:
            yield
        finally:
            self._sending_since = None

    def stop_reading(self) -> None:
        """End every read of the body, in any thread. A response can still be written."""
        self._is_read = False  # from now on the socket looks as if the client had left
        self._shut_down(socket.SHUT_RD)

    def abort(self) -> None:
        """End the connection in the middle, so that an incomplete response does not look complete."""
        self._shut_down(socket.SHUT_RDWR)

    def note_end(self) -> None:
        """End the request if the client has left."""
        try:
            if self._is_read:
                self.check()
        except ClientLeftError as error:
            self._fail(error)
            self.abort()

    def note_stall(self, now: float) -> None:
        """End the request if the client has been too slow until `now` (monotonic clock)."""
        configured = settings()
        seconds = configured.client_grace_seconds + CHUNK_BYTES / configured.client_min_bytes_per_second
        if (since := self._sending_since) is not None and now - since > seconds:
            self._fail(ClientLeftError("The client does not read the response."))
            self.abort()
        elif (since := self._receiving_since) is not None and now - since > seconds:
            self._fail(
                ApiError(
                    408,
                    Code.INVALID_REQUEST,
                    "The body arrived too slowly; send the request again over a faster connection.",
                )
            )
            self.stop_reading()

    def _fail(self, reason: LongshoreError) -> None:
        if self.failure is None:
            self.failure = reason
            self._on_failure()

    def _shut_down(self, how: int) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the client has closed it
                self._socket.shutdown(how)


class _ConnectionWatch:
    """The thread that watches the connections of all requests in progress."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._connections: dict[int, ClientConnection] = {}
        self._is_needed = threading.Event()
        threading.Thread(target=self._run, name="connection-watch", daemon=True).start()

    def add(self, descriptor: int, connection: ClientConnection) -> None:
        with self._lock:
            self._connections[descriptor] = connection
            self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
            self._is_needed.set()

    def remove(self, descriptor: int) -> None:
        """Stop watching a connection. Afterwards it is not touched."""
        with self._lock:
            del self._connections[descriptor]
            self._epoll.unregister(descriptor)
            if not self._connections:
                self._is_needed.clear()

    def _run(self) -> None:
        while self._is_needed.wait():
            events = self._epoll.poll(POLL_INTERVAL_SECONDS)
            with self._lock:
                for descriptor, _ in events:
                    if connection := self._connections.get(descriptor):  # perhaps a newer one of this number
                        connection.note_end()
                now = time.monotonic()
                for connection in self._connections.values():
                    connection.note_stall(now)


@cache
def _watch_of(_pid: int) -> _ConnectionWatch:
    return _ConnectionWatch()
