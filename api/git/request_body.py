"""Read the body of a git request: decode it, limit its size, and detect that it is incomplete."""

import zlib
from collections.abc import Iterator
from typing import IO

import structlog
from werkzeug.wrappers import Request

from api.git.connection import CHUNK_BYTES, ClientConnection
from shared.errors import InvalidInputError, RequestError
from shared.settings import settings
from shared.settings.serving import MEBIBYTE

MAX_FETCH_BYTES = 8 * MEBIBYTE
"""Limit of a fetch's request, also when decompressed: the names of 160,000 commits. (Git itself stops at 10 MiB.)"""
MAX_REJECTED_PUSH_FACTOR = 4
"""The body of a push that git has rejected is read up to this multiple of the limit, so that the client sees why."""
MAX_PUSH_LINES = 2000
"""Limit of branches, tags and options in one push. Each becomes a file."""
MAX_LINE_BYTES = 4096
MAX_REF_NAME_BYTES = 250
MAX_REF_NAME_PARTS = 20
"""Each part but the last becomes a directory."""

_GZIP_BITS = 16 + zlib.MAX_WBITS

log = structlog.get_logger(__name__)


class PushLimitError(RequestError):
    """Raised when a push updates too many references, or one with a name that is too long."""


class RequestBody:
    """The body of one request, read once, by one thread."""

    def __init__(self, request: Request, connection: ClientConnection, commands: "PushCommands | None") -> None:
        """Prepare reading; `commands` is for a push.

        Raises:
            InvalidInputError: the body has an unknown encoding.
        """
        self._stream: IO[bytes] = request.stream
        self._length = request.content_length
        self._connection = connection
        self._commands = commands
        self._max_bytes = (
            MAX_FETCH_BYTES if commands is None else MAX_REJECTED_PUSH_FACTOR * settings().source_max_bytes
        )
        self._received = 0
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise InvalidInputError(
                f"The encoding {encoding[:40]} is not understood: send the body plain or with gzip."
            )
        self._is_gzip = encoding != "identity"

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body.

        Raises:
            InvalidInputError: the body is incomplete, too large or damaged.
            PushLimitError: see there.
        """
        decoded = 0
        for chunk in self._decompress() if self._is_gzip else self._receive():
            decoded += len(chunk)
            if self._commands is not None:
                self._commands.check(chunk)
            elif decoded > MAX_FETCH_BYTES:
                raise InvalidInputError(f"The request of this fetch is larger than {MAX_FETCH_BYTES // MEBIBYTE} MiB.")
            yield chunk

    def discard(self) -> None:
        """Read what is left, so that the client gets the response."""
        for _ in self._receive():
            pass

    def _receive(self) -> Iterator[bytes]:
        while self._received <= self._max_bytes:
            try:
                with self._connection.receiving():
                    chunk = self._stream.read(CHUNK_BYTES)
            except Exception as error:  # noqa: BLE001 - servers raise different errors when the client has disconnected
                log.info("request_interrupted", error=type(error).__name__)
                raise InvalidInputError("The body is incomplete: the connection broke off.") from None
            if not chunk:
                if self._length is not None and self._received < self._length:
                    raise InvalidInputError(
                        f"The body is incomplete: {self._received} of {self._length} bytes arrived."
                    )
                return
            self._received += len(chunk)
            yield chunk
        raise InvalidInputError(f"The body is larger than {self._max_bytes // MEBIBYTE} MiB.")

    def _decompress(self) -> Iterator[bytes]:
        decoder = zlib.decompressobj(_GZIP_BITS)
        for chunk in self._receive():
            rest = chunk
            while rest and not decoder.eof:
                try:
                    decoded = decoder.decompress(rest, CHUNK_BYTES)
                except zlib.error:
                    raise InvalidInputError("The body is not valid gzip.") from None
                rest = decoder.unconsumed_tail
                if decoded:
                    yield decoded
        if self._received and not decoder.eof:
            raise InvalidInputError("The body is incomplete: its gzip stream has no end.")


class PushCommands:
    """Bounds what precedes the pack: pkt-lines with references and options (git's pack-protocol documentation)."""

    def __init__(self, *, max_new: int) -> None:
        """`max_new` is the number of references that may still be created in the repository."""
        self._pending = bytearray()
        self._remaining_lines = MAX_PUSH_LINES
        self._remaining_new = max_new
        self._is_pack = False

    def check(self, chunk: bytes) -> None:
        """Check the next bytes of a push.

        Raises:
            PushLimitError: there are too many lines, or one is too long. Git reports all other errors.
        """
        if self._is_pack:
            return
        self._pending += chunk
        position = 0
        while end := self._end_of_line(position):
            self._check_line(bytes(self._pending[position + 4 : end]))
            position = end
        del self._pending[:position]

    def _end_of_line(self, start: int) -> int | None:
        """Return the end of the line that starts here; None if it is not complete yet."""
        head = bytes(self._pending[start : start + 4])
        if len(head) < 4:
            return None
        try:
            length = max(4, int(head, 16))
        except ValueError:  # "PACK", or invalid
            self._is_pack = True
            self._pending.clear()
            return None
        if length > MAX_LINE_BYTES:
            raise PushLimitError(f"A reference or option of this push is longer than {MAX_LINE_BYTES} bytes.")
        return start + length if len(self._pending) >= start + length else None

    def _check_line(self, line: bytes) -> None:
        self._remaining_lines -= 1
        if self._remaining_lines < 0:
            raise PushLimitError(
                f"This push updates too many references: push at most {MAX_PUSH_LINES} branches, tags and options "
                "at a time."
            )
        old, _, rest = line.partition(b"\0")[0].rstrip(b"\n").partition(b" ")
        name = rest.partition(b" ")[2]
        if not name.startswith(b"refs/"):
            return
        if len(name) > MAX_REF_NAME_BYTES or name.count(b"/") >= MAX_REF_NAME_PARTS:
            raise PushLimitError(
                f"The name of a branch or tag is too long: at most {MAX_REF_NAME_BYTES} bytes and "
                f"{MAX_REF_NAME_PARTS} parts between slashes."
            )
        if old.strip(b"0"):
            return  # the reference exists
        self._remaining_new -= 1
        if self._remaining_new < 0:
            raise PushLimitError("The repository has too many branches and tags; delete some first.")
