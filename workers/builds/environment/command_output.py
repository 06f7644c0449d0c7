"""Read what a command in a container prints, from the engine's stream."""

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import requests

STDOUT = 1
"""The number of the stream in the header of a frame."""
_FRAME_HEADER_BYTES = 8


def read_output(response: requests.Response, only: int | None = None) -> Iterator[bytes]:
    """Yield a command's output from the engine's frames (Engine API, "Attach to a container": stream format).

    `only` is the number of a stream. docker-py's own reader takes the bytes from below the HTTP client's buffer, and so
    loses those that came with the headers; this one reads through it.
    """
    reader = cast("BinaryIO", cast("Any", response.raw)._fp.fp)  # noqa: SLF001 - urllib3 has no public name for it
    while len(header := reader.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES:
        content = reader.read(int.from_bytes(header[4:], "big"))
        if only is None or header[0] == only:
            yield content
