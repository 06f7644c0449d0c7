"""The gateway's listener: the limit of its connections, and the time limit for the headers of a request."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from typing_extensions import override

from api.gateway.forwarding import Gateway
from api.gateway.responses import failure
from api.gateway.services import CHUNK_BYTES, MAX_HEADER_BYTES
from shared.settings import Settings

log = structlog.get_logger(__name__)

IDLE_CLIENT_TIMEOUT_SECONDS = 75
HEAD_TIMEOUT_SECONDS = 15
"""From the first byte of a request to the end of its headers."""
MAX_CONNECTIONS = 4096
DESCRIPTORS_OF_CONNECTION = 4
"""To the client, to the service, and for the temporary files of the body and of the response."""
UNREACHABLE_CLIENT_SECONDS = 60
LINGER_SECONDS = 2
"""How long the rest of a body is read, after what `Gateway` has read of it."""
TIMED_OUT_HEAD = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"


class Connections:
    """The connections of clients. Above the limit, connections without a request are closed, the oldest first."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._count = 0
        self._silent: OrderedDict[JsonRequestHandler, None] = OrderedDict()
        """Connections that have not sent a request yet."""
        self._idle: OrderedDict[JsonRequestHandler, None] = OrderedDict()
        """Connections whose requests have all ended."""

    def add(self, handler: "JsonRequestHandler") -> None:
        self._count += 1
        self._silent[handler] = None
        if self._count > self._max_connections:
            oldest = next(iter(self._silent))
            if oldest is handler and self._idle:
                oldest = next(iter(self._idle))
            log.warning("too_many_connections", connections=self._count)
            oldest.abort()

    def remove(self, handler: "JsonRequestHandler") -> None:
        self._count -= 1
        self._silent.pop(handler, None)
        self._idle.pop(handler, None)

    def mark_busy(self, handler: "JsonRequestHandler") -> None:
        self._silent.pop(handler, None)
        self._idle.pop(handler, None)

    def mark_idle(self, handler: "JsonRequestHandler") -> None:
        if handler.connected:
            self._idle[handler] = None


class JsonRequestHandler(RequestHandler):
    """A connection whose own errors, such as invalid HTTP, have the format of the API's errors."""

    __slots__ = ("_connections", "_head_timer")

    def __init__(self, manager: web.Server, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = connections
        self._head_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            # Nothing else ends a connection to a client that has vanished or never reads.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREACHABLE_CLIENT_SECONDS * 1000)
        self._connections.add(self)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        self._stop_head_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._close:
            return
        if not self._is_waiting_for_head():
            self._stop_head_timer()
        elif data and self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_TIMEOUT_SECONDS, self._end_slow_head)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("request_failed", exc_info=exc)
            return failure(status, "An internal error; the log of the gateway has its cause.")
        return failure(status, "This is not a valid HTTP request.")

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _is_waiting_for_head(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_slow_head(self) -> None:
        self._head_timer = None
        if not self._is_waiting_for_head() or self.transport is None:
            return
        text = failure(408, "The headers of the request arrived too slowly; send it again.").body
        body = text if isinstance(text, bytes) else b""
        self.transport.write(f"{TIMED_OUT_HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self.close()
        # Closed at once, it would be reset by what the client still sends, and the response lost.
        self._head_timer = self._loop.call_later(LINGER_SECONDS, self.force_close)


class GatewayServer(web.Server):
    """Creates the handler of each connection."""

    def __init__(self, gateway: Gateway, connections: Connections, **options: Any) -> None:
        super().__init__(self._handle, **options)
        self._gateway = gateway
        self._client_connections = connections

    @override
    def __call__(self) -> RequestHandler:
        return JsonRequestHandler(self, self._client_connections, loop=self._loop, **self._kwargs)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        if not isinstance(handler, JsonRequestHandler):
            raise TypeError(type(handler))
        self._client_connections.mark_busy(handler)
        try:
            return await self._gateway.handle(request)
        finally:
            self._client_connections.mark_idle(handler)


async def serve(configured: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain for at most `shutdown_seconds`.

    Raises:
        OSError: the gateway cannot listen on the address.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(configured, max_connections=_raise_descriptor_limit()):
        await stop.wait()


def _raise_descriptor_limit() -> int:
    """Let this process open as many files as it may, and return for how many connections they suffice."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = (MAX_CONNECTIONS + 64) * DESCRIPTORS_OF_CONNECTION
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return min(MAX_CONNECTIONS, max(1, limit // DESCRIPTORS_OF_CONNECTION - 64))


@contextlib.asynccontextmanager
async def listening(configured: Settings, *, max_connections: int = MAX_CONNECTIONS) -> AsyncIterator[int]:
    """Run the gateway while the block runs, and give the port that it listens on."""
    gateway = Gateway(configured)
    server = GatewayServer(
        gateway,
        Connections(max_connections),
        handler_cancellation=True,  # the request to the service ends when its caller disconnects
        auto_decompress=False,
        access_log=None,
        keepalive_timeout=IDLE_CLIENT_TIMEOUT_SECONDS,
        lingering_time=LINGER_SECONDS,
        read_bufsize=CHUNK_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, configured.host, configured.port, backlog=1024)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        # cleanup() alone would drop the rest of the bodies that are being sent.
        await site.stop()
        await gateway.drain(seconds=configured.shutdown_seconds)
        await runner.cleanup()
        await gateway.close()
