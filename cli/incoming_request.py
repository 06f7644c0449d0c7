"""Read a request completely, within limits of size and time, before a thread is taken for it."""

import re
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from typing_extensions import override

SILENT_TIMEOUT_SECONDS = 75
"""Until the first byte: as long as an idle connection is kept."""
HEAD_TIMEOUT_SECONDS = 15
MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 8 * 1024
END_OF_HEAD = b"\r\n\r\n"
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;.*)?", re.DOTALL)


class Received(Enum):
    """How much of a request was received."""

    PART = auto()
    ALL = auto()
    """Everything that is read before a thread is taken."""
    INVALID = auto()
    TOO_LARGE = auto()


@dataclass(frozen=True)
class BodyLimits:
    """Limits of bodies that are read whole."""

    max_bytes: int
    timeout_seconds: float
    grace_seconds: float
    min_bytes_per_second: float


class BufferedUnreader(SocketUnreader):
    """Gives gunicorn's parser the bytes that were received before, and then those of the socket if that is allowed."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.received: deque[bytes] = deque()
        self.reads_socket = False
        """If not, a parser that expects more bytes ends the request instead of waiting for them."""

    @override
    def chunk(self, size_hint: int | None = None) -> bytes:
        if self.received:
            return self.received.popleft()
        if not self.reads_socket:
            return b""
        return super().chunk(size_hint)  # type: ignore[call-arg]  # the types are of an older version


class IncomingRequest:
    """A request that is being received on a connection, or an unused rest that is discarded.

    Only the end of the request is determined here. Gunicorn parses it, and rejects invalid ones.
    """

    def __init__(self, conn: Any, limits: BodyLimits | None) -> None:
        self.conn = conn
        self.head = b""
        self.size = 0
        self.awaits_continue = False
        """Whether its sender waits for "100 Continue" before it sends the body."""
        self.is_discarded = False
        self._limits = limits
        self._pieces: list[bytes] = []
        self._rest = b""
        """The beginning of the next request on the connection."""
        self._body: _Length | _Chunks | None = None
        self._began_at = self._body_began_at = time.monotonic()
        self._discard_until = 0.0
        self._discarded_bytes = 0

    @property
    def is_silent(self) -> bool:
        return self.size == 0

    def feed(self, data: bytes) -> Received:
        if self.is_silent:
            self._began_at = time.monotonic()
        self.size += len(data)
        if self._body is not None and self._limits is not None:
            return self._feed_body(data, self._body, self._limits)
        self._pieces.append(data)
        whole = b"".join(self._pieces)
        end = whole.find(END_OF_HEAD)
        if end < 0:
            self._pieces = [whole]
            return Received.PART if len(whole) <= MAX_HEAD_BYTES else Received.INVALID
        self.head, after = whole[:end], whole[end + len(END_OF_HEAD) :]
        if self._limits is None:
            return Received.ALL
        self._body_began_at = time.monotonic()
        body = _find_body(self.head)
        if body is None:
            return Received.ALL  # its end is unknown: gunicorn rejects it
        self._body = body
        self._pieces = [whole[: end + len(END_OF_HEAD)]]
        self.awaits_continue = not after and b"100-continue" in self.head.lower()
        return self._feed_body(after, body, self._limits)

    def _feed_body(self, data: bytes, body: "_Length | _Chunks", limits: BodyLimits) -> Received:
        try:
            end = body.find_end(data)
        except ValueError:
            return Received.INVALID
        if body.size > limits.max_bytes or self.size > 2 * limits.max_bytes + 2 * MAX_HEAD_BYTES:
            return Received.TOO_LARGE
        self._pieces.append(data if end is None else data[:end])
        if end is None:
            return Received.PART
        self._rest = data[end:]
        return Received.ALL

    def take(self) -> tuple[list[bytes], bytes]:
        """Return the request in pieces, and the beginning of the next one."""
        return self._pieces, self._rest

    def discard(self, *, max_bytes: int, seconds: float) -> None:
        """Drop it, and read at most so much more, so that its sender gets the response."""
        self.is_discarded = True
        self._pieces = []
        self._discarded_bytes = max_bytes
        self._discard_until = time.monotonic() + seconds

    def has_discarded(self, data: bytes) -> bool:
        """Count discarded bytes; return whether there may be more."""
        self._discarded_bytes -= len(data)
        return self._discarded_bytes > 0

    def is_overdue(self, now: float) -> bool:
        if self.is_discarded:
            return now > self._discard_until
        if self.is_silent:
            return now > self._began_at + SILENT_TIMEOUT_SECONDS
        if self._body is None or self._limits is None:
            return now > self._began_at + HEAD_TIMEOUT_SECONDS
        taken = now - self._body_began_at
        by_rate = self._limits.grace_seconds + self.size / self._limits.min_bytes_per_second
        return taken > min(by_rate, self._limits.timeout_seconds)


class _Length:
    """A body whose length is in the head."""

    def __init__(self, size: int) -> None:
        self.size = self._left = size

    def find_end(self, data: bytes) -> int | None:
        """Return the index after the last byte of the body; None if more must arrive."""
        if len(data) >= self._left:
            return self._left
        self._left -= len(data)
        return None


class _Chunks:
    """A body in chunks (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self.size = 0
        self._left = 0
        self._line = bytearray()
        self._is_last = False

    def find_end(self, data: bytes) -> int | None:
        """Return the index after the last byte of the body; None if more must arrive.

        Raises:
            ValueError: this is not a chunk.
        """
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            if len(self._line) > MAX_CHUNK_LINE_BYTES:
                raise ValueError("a line of a chunk is too long")
            if not end:
                return None
            at = end
            if self._has_ended():
                return at
        return None

    def _has_ended(self) -> bool:
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise ValueError("a line of a chunk ends with a line feed alone")
        line = line[:-2]
        if self._is_last:
            return not line
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise ValueError("the size of a chunk is not a number")
        size = int(match[1], 16)
        self.size += size
        self._is_last = size == 0
        self._left = 0 if self._is_last else size + len(b"\r\n")
        return False


def has_body(head: bytes) -> bool:
    """Return whether a request with this head has, or may have, a body."""
    body = _find_body(head)
    return body is None or isinstance(body, _Chunks) or body.size > 0


def _find_body(head: bytes) -> _Length | _Chunks | None:
    """Return the body that a head announces; None if gunicorn must decide."""
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    lengths = [value.strip() for name, _, value in fields if name.strip().lower() == b"content-length"]
    codings = [value.strip().lower() for name, _, value in fields if name.strip().lower() == b"transfer-encoding"]
    if codings:
        return _Chunks() if codings[-1].endswith(b"chunked") and not lengths else None
    if not lengths:
        return _Length(0)
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        return None
    return _Length(int(lengths[0]))
