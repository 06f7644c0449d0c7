"""What the algorithm's process prints: passed on to the container, and kept in part for whoever called.

The named pipe that answers come through, and reading without waiting.
"""

from __future__ import annotations

import contextlib
import os

READY_MARKER = b"PIPE_INIT_COMPLETE"
"""What the kit prints once the algorithm has loaded."""

KEPT_BYTES = 1024 * 1024
"""How much of one call's standard output is kept."""

KEPT_ERROR_BYTES = 64 * 1024
"""How much of standard error is kept: its end, where the reason stands."""


class Head:
    """The beginning of what was printed, up to a limit in bytes."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._cut = False

    def add(self, data: bytes) -> None:
        """Keep what still fits."""
        room = self._limit - len(self._kept)
        self._cut = self._cut or len(data) > room
        self._kept += data[:room]

    def text(self) -> str:
        """What was kept; its last line says so where something was cut off."""
        text = bytes(self._kept).decode("utf-8", "replace")
        return f"{text}\n[cut off after {self._limit} bytes]\n" if self._cut else text


class Tail:
    """The end of what was printed, up to a limit in bytes."""

    def __init__(self, limit: int = KEPT_ERROR_BYTES) -> None:
        self._limit = limit
        self._kept = b""

    def add(self, data: bytes) -> None:
        """Keep it, and let go of what is too old."""
        self._kept = (self._kept + data)[-self._limit :]

    def clear(self) -> None:
        """Begin anew."""
        self._kept = b""

    def text(self) -> str:
        """What was kept."""
        return self._kept.decode("utf-8", "replace")


class MarkerFilter:
    """Finds the kit's marker in a stream that comes in pieces, and takes it and its line end out."""

    def __init__(self) -> None:
        self.seen = False
        self._held = b""
        self._line_end_due = False

    def feed(self, data: bytes) -> bytes:
        """What of the stream can be passed on by now."""
        if self.seen:
            return self._without_line_end(data)
        data = self._held + data
        before, marker, after = data.partition(READY_MARKER)
        if marker:
            self.seen = self._line_end_due = True
            self._held = b""
            return before + self._without_line_end(after)
        held = _length_of_beginning(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def rest(self) -> bytes:
        """What was held back because it could have been the marker's beginning; for the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _without_line_end(self, data: bytes) -> bytes:
        if self._line_end_due and data:
            self._line_end_due = False
            return data[1:] if data.startswith(b"\n") else data
        return data


def pass_on(descriptor: int, data: bytes) -> None:
    """Write to the container's own output; where nobody reads it any more, it is lost."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        return


def _length_of_beginning(data: bytes) -> int:
    for length in range(min(len(data), len(READY_MARKER) - 1), 0, -1):
        if data.endswith(READY_MARKER[:length]):
            return length
    return 0


PIPE_PATH = "/tmp/algoout"  # noqa: S108 - the kit's own path
CHUNK_BYTES = 64 * 1024
CHUNKS_AT_ONCE = 64
"""Bounds how long one look at a stream lasts, should the process print without end."""


def fresh_pipe() -> int:
    """Make the named pipe, in place of whatever a former process left there, and open it.

    Opened for writing too (which Linux allows), so that it has no end of file between two answers.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PIPE_PATH)
    os.mkfifo(PIPE_PATH, 0o600)
    return os.open(PIPE_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)


def read_some(descriptor: int) -> bytes | None:
    """What can be read without waiting, within bounds; None at the end of the stream."""
    pieces: list[bytes] = []
    for _ in range(CHUNKS_AT_ONCE):
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
