"""The named pipe that answers come through, and reading without waiting."""

from __future__ import annotations

import contextlib
import os

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
