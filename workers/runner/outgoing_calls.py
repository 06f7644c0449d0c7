"""Calls that the algorithm makes: each is handed to the sender of the call under way, which makes it and responds.

Both directions use the connection that brought the call, so nothing but that sender is ever connected to. The runner
sends `HTTP/1.1 102 Processing` with the headers below and a body, any number of times before the call's own response;
the sender sends `HTTP/1.1 STATUS` with the same number, in any order.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict  # noqa: UP035 - Python 3.8 cannot subscript dict at run time

if TYPE_CHECKING:
    from io import BufferedIOBase

    from .messages import CallParameters

NUMBER_HEADER = "Longshore-Call"
TARGET_HEADER = "Longshore-Target"
MAX_LINE_BYTES = 1024
MAX_CONTENT_TYPE_LENGTH = 200
SENDER_MARGIN_SECONDS = 60.0
"""Time after the call's timeout for which its sender may be silent."""
CLOSE_TIMEOUT_SECONDS = 5.0


class RefusedError(Exception):
    """Raised for an outgoing call that cannot be handed on; `status` is the HTTP status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class OutgoingCall:
    """What the algorithm requested: path and query, content type and body."""

    target: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class OutgoingResponse:
    """The response to an outgoing call."""

    status: int
    content_type: str
    retry_after: str
    body: bytes


class OutgoingCalls:
    """Knows the call that is under way, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: CallChannel | None = None

    def set_channel(self, channel: CallChannel | None) -> None:
        with self._lock:
            self._channel = channel

    def make(self, call: OutgoingCall) -> OutgoingResponse:
        """Hand on a call, and wait for its response.

        Raises:
            RefusedError: there is no call under way, or it may not make calls, or has ended.
        """
        with self._lock:
            channel = self._channel
        if channel is None:
            raise RefusedError(
                409,
                "No call of this algorithm is under way: it can call algorithms only while it works on a call itself, "
                "not while it loads or after it has answered.",
            )
        return channel.make(call)


class CallChannel:
    """The connection of one call. As a context manager: the algorithm works on the call."""

    def __init__(
        self, outgoing: OutgoingCalls, connection: socket.socket, reader: BufferedIOBase, parameters: CallParameters
    ) -> None:
        self._outgoing = outgoing
        self._connection = connection
        self._reader = reader
        self._parameters = parameters
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._responses: Dict[int, OutgoingResponse | None] = {}  # noqa: UP006 - as above
        self._ended = False
        self._lost = False
        self._number = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        self._ended = False
        self._outgoing.set_channel(self)

    def __exit__(self, *_exception: object) -> None:
        """Send nothing more: the next bytes on the connection are the response to the call."""
        self._outgoing.set_channel(None)
        with self._sending, self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def was_used(self) -> bool:
        return self._thread is not None

    def close(self) -> None:
        """Tell the sender that nothing more comes, and read what it still sends until it closes the connection."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_SECONDS)
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)
            self._thread.join()

    def make(self, call: OutgoingCall) -> OutgoingResponse:
        """Make a call; see `OutgoingCalls.make`."""
        maximum = self._parameters.outgoing
        if maximum == 0:
            raise RefusedError(
                403,
                "This algorithm may not call algorithms: its setting pipeline_enabled is false. "
                "Its owner can change that.",
            )
        with self._changed:
            if len(self._responses) >= maximum:
                raise RefusedError(
                    429,
                    f"{maximum} calls that this call made are in progress, and more are not allowed at the same time; "
                    "wait for one of them.",
                )
            self._number += 1
            number = self._number
            self._responses[number] = None
        try:
            self._send(number, call)
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._lost or self._responses[number] is not None)
                response = self._responses[number]
        finally:
            with self._changed:
                del self._responses[number]
        if response is None:
            raise RefusedError(409, "The call that made this one has ended, so nobody waits for it any more.")
        return response

    def _send(self, number: int, call: OutgoingCall) -> None:
        content_type = " ".join(call.content_type.split())[:MAX_CONTENT_TYPE_LENGTH]
        head = (
            f"HTTP/1.1 102 Processing\r\n{NUMBER_HEADER}: {number}\r\n{TARGET_HEADER}: {call.target}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(call.body)}\r\n\r\n"
        )
        with self._sending:
            if self._ended or self._lost:
                return
            if self._thread is None:
                self._connection.settimeout(self._parameters.timeout + SENDER_MARGIN_SECONDS)
                self._thread = threading.Thread(target=self._read, name="outgoing-responses", daemon=True)
                self._thread.start()
            try:
                self._connection.sendall(head.encode("latin-1", "replace") + call.body)
            except OSError:
                self._lose()

    def _read(self) -> None:
        try:
            while self._read_response():
                pass
        except (OSError, ValueError, http.client.HTTPException):
            pass
        self._lose()

    def _read_response(self) -> bool:
        """Read one response; return False at the end of the connection."""
        line = self._reader.readline(MAX_LINE_BYTES).split()
        if not line:
            return False
        headers = http.client.parse_headers(self._reader)
        length = int(headers.get("Content-Length", ""))
        response = OutgoingResponse(
            int(line[1]),
            headers.get("Content-Type", "application/json"),
            headers.get("Retry-After", ""),
            self._reader.read(length),
        )
        if len(response.body) < length:
            return False
        number = int(headers.get(NUMBER_HEADER, ""))
        with self._changed:
            if number in self._responses:
                self._responses[number] = response
                self._changed.notify_all()
        return True

    def _lose(self) -> None:
        with self._changed:
            self._lost = True
            self._changed.notify_all()
