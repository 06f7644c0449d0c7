"""Send responses to clients: the gateway's own errors, and those of a service, for which slow clients are ended."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web

from api.errors import Code
from api.gateway.pace import Pace, Spool, TooSlowError
from shared.errors import LimitReachedError, UnavailableError

EVENT_STREAM = "text/event-stream"
STALLED_STREAM_SECONDS = 60
"""How long a client may read nothing of an event stream that has something to read."""


def failure(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, is_text: bool = False
) -> web.Response:
    """Return an error in the format of all errors of the API, or as plain text, which git shows its users."""
    request_id = uuid.uuid4().hex
    fields = {"X-Request-Id": request_id, "Cache-Control": "no-store", "Server": "longshore", **(headers or {})}
    if is_text:
        response = web.Response(text=f"{message}\n", status=status, headers=fields)
    else:
        error = {"id": request_id, "code": int(Code.INVALID_REQUEST), "message": message}
        response = web.json_response({"error": error}, status=status, headers=fields)
    response.force_close()
    return response


async def relay_at_client_speed(upstream: aiohttp.ClientResponse, response: web.StreamResponse, pace: Pace) -> None:
    """Send the body of a service's response as it arrives. The service waits for the client.

    Raises:
        TooSlowError: the client reads too slowly.
    """
    is_event_stream = upstream.content_type == EVENT_STREAM
    async for chunk in upstream.content.iter_any():
        if is_event_stream:
            pace = Pace(grace_seconds=STALLED_STREAM_SECONDS, bytes_per_second=1)
        await _write(response, chunk, pace)
    await pace.wait(response.write_eof(), lambda _: 0)


async def relay_at_service_speed(
    upstream: aiohttp.ClientResponse,
    response: web.StreamResponse,
    pace: Pace,
    spool: Spool,
    on_received: Callable[[], Awaitable[None]],
) -> None:
    """Send the body of a service's response, and buffer what the client has not read yet.

    `on_received` is called when the service has sent everything.

    Raises:
        TooSlowError: the client reads too slowly.
    """
    backlog = _Backlog(spool)
    receiver = asyncio.create_task(backlog.receive(upstream, on_received))
    try:
        while data := await backlog.next():
            await _write(response, data, pace)
        await receiver
        await pace.wait(response.write_eof(), lambda _: 0)
    finally:
        receiver.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            await receiver


async def _write(response: web.StreamResponse, chunk: bytes, pace: Pace) -> None:
    await pace.wait(response.write(chunk), lambda _: len(chunk))


async def send(request: web.BaseRequest, response: web.StreamResponse, pace: Pace) -> None:
    """Send a response of the gateway's own, which is small."""
    with contextlib.suppress(TooSlowError, ConnectionError):
        await pace.wait(response.prepare(request), lambda _: 0)
        await pace.wait(response.write_eof(), lambda _: 0)


class _Backlog:
    """The part of a response that its client has not read yet."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._excess = b""
        """A chunk that did not fit into the spool. Nothing else is received until the client has read it."""
        self._has_ended = False
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()

    async def receive(self, upstream: aiohttp.ClientResponse, on_received: Callable[[], Awaitable[None]]) -> None:
        try:
            async for chunk in upstream.content.iter_any():
                try:
                    self._spool.append(chunk)
                    self._arrived.set()
                except (LimitReachedError, UnavailableError):
                    self._excess = chunk
                    self._has_room.clear()
                    self._arrived.set()
                    await self._has_room.wait()
        finally:
            self._has_ended = True
            self._arrived.set()
            await on_received()

    async def next(self) -> bytes:
        """Return the next bytes for the client; none at the end."""
        while True:
            if data := self._spool.take():
                return data
            if self._excess:
                data, self._excess = self._excess, b""
                self._has_room.set()
                return data
            if self._has_ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
