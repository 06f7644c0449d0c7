"""What the algorithm's process prints: passed on to the container, and kept in part for whoever called."""

from __future__ import annotations

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
