"""Bodies of requests: read whole before a service is asked, or for git streamed after their beginning."""

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from api.gateway.pace import Pace, Spool, TooSlowError
from shared.errors import LongshoreError

MAX_DISCARDED_BYTES = 64 * 1024**2
"""Limit of what is read of an unused body, so that its sender gets the response (RFC 9112, section 9.6)."""
PREFIX_BYTES = 64 * 1024
"""How much of a git client's body is read before the git service is asked."""


class BodyTooLargeError(LongshoreError):
    """Raised when a body is larger than its service takes."""


class InvalidBodyError(LongshoreError):
    """Raised when the encoding of a body is invalid."""


class RequestBody:
    """The body of a request while its client sends it."""

    def __init__(self, request: web.BaseRequest, pace: Pace, spool: Spool) -> None:
        self._request = request
        self._pace = pace
        self._spool = spool
        self._is_asked_for = not self.expects_continue
        self._is_complete = not request.body_exists
        self._read_bytes = 0
        self.is_sent = self._is_complete
        """The service has all of it."""
        self.is_slow = False
        """Its client was too slow; nothing more is read from it."""
        self.error: LongshoreError | None = None
        """Why `stream` ended early: the client of the service that reads it reports only that it did."""

    @property
    def expects_continue(self) -> bool:
        return self._request.headers.get("Expect", "").lower() == "100-continue"

    @property
    def is_asked_for(self) -> bool:
        """Return whether the client was told to send it, or sends it without being told."""
        return self._is_asked_for

    @property
    def length(self) -> int | None:
        """The length in bytes; None if it is not known yet."""
        return self._read_bytes if self._is_complete else self._request.content_length

    async def read_whole(self, max_bytes: int) -> None:
        """Read it to its end.

        Raises:
            BodyTooLargeError: it is larger than `max_bytes`.
            TooSlowError: the client sends too slowly.
            LimitReachedError, UnavailableError: no more may be held.
            InvalidBodyError: its encoding is invalid.
        """
        if (self._request.content_length or 0) > max_bytes:
            raise _too_large(max_bytes)
        while not self._is_complete:
            await self._read()
            if self._read_bytes > max_bytes:
                raise _too_large(max_bytes)

    async def read_beginning(self) -> None:
        """Read at most about `PREFIX_BYTES`. Raises what `read_whole` raises."""
        while not self._is_complete and len(self._spool) < PREFIX_BYTES:
            await self._read()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield all of it: what was read, and the rest as it comes. Raises what `read_whole` raises."""
        try:
            while True:
                while data := self._spool.take():
                    yield data
                if self._is_complete:
                    self.is_sent = True
                    return
                await self._read()
        except LongshoreError as error:
            self.error = error
            raise

    async def discard(self, pace: Pace) -> None:
        """Read the rest and drop it. Raises what `read_whole` raises."""
        rest = MAX_DISCARDED_BYTES
        while rest > 0 and (data := await self._next(pace)):
            rest -= len(data)

    async def _read(self) -> None:
        if not self._is_asked_for and self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._is_asked_for = True
        data = await self._next(self._pace)
        self._is_complete = not data
        self._read_bytes += len(data)
        if data:
            self._spool.append(data)

    async def _next(self, pace: Pace) -> bytes:
        try:
            return await pace.wait(self._request.content.readany(), len)
        except TooSlowError:
            self.is_slow = True
            raise
        except (HttpProcessingError, RequestPayloadError) as error:
            raise InvalidBodyError("The encoding of the body is invalid.") from error


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {max_bytes} bytes, the most that is taken here.")
