"""Read the output of the algorithm's process: bounded buffers, the kit's ready marker, the named pipe of results."""

from __future__ import annotations

import contextlib
import os

READY_MARKER = b"PIPE_INIT_COMPLETE"

MAX_STDOUT_BYTES = 1024 * 1024

MAX_STDERR_BYTES = 64 * 1024
"""Limit of the standard error that is kept: its end, which has the cause of a failure."""

PIPE_PATH = "/tmp/algoout"  # noqa: S108 - the path that the kit uses
CHUNK_BYTES = 64 * 1024
MAX_CHUNKS = 64
"""Bounds one read of a stream, in case the process prints without end."""


class HeadBuffer:
    """Keeps the beginning of a stream, up to a limit in bytes."""

    def __init__(self, limit: int = MAX_STDOUT_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()
        self._truncated = False

    def add(self, data: bytes) -> None:
        available = self._limit - len(self._data)
        self._truncated = self._truncated or len(data) > available
        self._data += data[:available]

    def text(self) -> str:
        """Return the text; its last line says so if it was truncated."""
        text = bytes(self._data).decode("utf-8", "replace")
        return f"{text}\n[cut off after {self._limit} bytes]\n" if self._truncated else text


class TailBuffer:
    """Keeps the end of a stream, up to a limit in bytes."""

    def __init__(self, limit: int = MAX_STDERR_BYTES) -> None:
        self._limit = limit
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-self._limit :]

    def clear(self) -> None:
        self._data = b""

    def text(self) -> str:
        return self._data.decode("utf-8", "replace")


class MarkerFilter:
    """Removes the kit's ready marker and its line end from a stream that comes in pieces."""

    def __init__(self) -> None:
        self.seen = False
        self._pending = b""
        self._expects_line_end = False

    def feed(self, data: bytes) -> bytes:
        """Add a piece, and return the bytes that cannot be part of the marker."""
        if self.seen:
            return self._without_line_end(data)
        data = self._pending + data
        before, marker, after = data.partition(READY_MARKER)
        if marker:
            self.seen = self._expects_line_end = True
            self._pending = b""
            return before + self._without_line_end(after)
        lengths = range(min(len(data), len(READY_MARKER) - 1), 0, -1)
        length = next((length for length in lengths if data.endswith(READY_MARKER[:length])), 0)
        self._pending = data[len(data) - length :]
        return data[: len(data) - length]

    def flush(self) -> bytes:
        """Return the bytes that were held back as a possible beginning of the marker, at the end of the stream."""
        pending, self._pending = self._pending, b""
        return pending

    def pass_all(self) -> bytes:
        """Expect no marker any more, and return the bytes that were held back."""
        self.seen = True
        return self.flush()

    def _without_line_end(self, data: bytes) -> bytes:
        if self._expects_line_end and data:
            self._expects_line_end = False
            return data[1:] if data.startswith(b"\n") else data
        return data


def forward(descriptor: int, data: bytes) -> None:
    """Write to the container's own output; the data is lost if its reader is gone."""
    rest = memoryview(data)
    with contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def create_pipe() -> int:
    """Create the named pipe in place of any file that an earlier process left there, and open it.

    It is opened for writing too (which Linux allows), so that it has no end of file between two results.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PIPE_PATH)
    os.mkfifo(PIPE_PATH, 0o600)
    return os.open(PIPE_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)


def read_available(descriptor: int) -> bytes | None:
    """Return the bytes that can be read without waiting, up to a limit; None at the end of the stream."""
    pieces: list[bytes] = []
    for _ in range(MAX_CHUNKS):
        try:
            piece = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            break
        except OSError:
            piece = b""
        if not piece:
            return b"".join(pieces) or None
        pieces.append(piece)
    return b"".join(pieces)
