"""The gateway: one public address before the git service, the service of calls, and the API for everything else.

It is a reverse proxy that streams bodies both ways without buffering them, at the speed of the slower side. RFC 9110,
section 7.6, says which headers an intermediary forwards.
"""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping

import aiohttp
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override
from yarl import URL

from api.errors import Code
from api.proxy_headers import is_in
from shared.errors import LongshoreError
from shared.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_SECONDS = 5
BODY_TIMEOUT_SECONDS = 60
"""Time without a byte of a request's body after which the request is ended: it holds a thread of the API."""
IDLE_CLIENT_TIMEOUT_SECONDS = 75
IDLE_CALLS_TIMEOUT_SECONDS = 1.0
DRAIN_POLL_INTERVAL_SECONDS = 0.05
MAX_HEADER_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection")
) | {"te", "trailer", "transfer-encoding", "upgrade"}
CALLS_PREFIXES = ("/v1/algo/", "/v1/requests/")
REMOVED_HEADERS = frozenset(("expect", "forwarded", "x-real-ip"))
"""Headers that callers may not send to the services behind the gateway, besides every X-Forwarded-… header."""


class BodyTimeoutError(LongshoreError):
    """Raised when a caller stopped sending in the middle of a body."""


class Gateway:
    """Forwards requests to the services, and counts those in progress."""

    def __init__(self, *, api_url: str, git_url: str, calls_url: str, trusted_proxies: tuple[str, ...] = ()) -> None:
        self._trusted = trusted_proxies
        self._api_url = api_url.rstrip("/")
        self._git_url = git_url.rstrip("/")
        self._calls_url = calls_url.rstrip("/")
        self._in_progress = 0
        self._is_draining = False
        self._unreachable: set[str] = set()
        # A new connection for each request: the service may close one that was kept just when it is used again, and a
        # POST must not be sent twice.
        self._session = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        # Calls are many and short: connecting took a tenth of a warm one. The service keeps idle connections much
        # longer than the gateway, so it closes one during a call only when it ends itself.
        self._calls_session = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CALLS_TIMEOUT_SECONDS))

    async def close(self) -> None:
        await self._session.close()
        await self._calls_session.close()

    async def drain(self, *, seconds: float) -> None:
        """Wait until the requests in progress have ended, for at most so many seconds."""
        self._is_draining = True
        deadline = time.monotonic() + seconds
        while self._in_progress and time.monotonic() < deadline:
            await asyncio.sleep(DRAIN_POLL_INTERVAL_SECONDS)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began_at = time.monotonic()
        self._in_progress += 1
        try:
            response = await self._forward(request)
            log.debug(
                "request_forwarded",
                method=request.method,
                path=request.path,
                status=response.status,
                ms=round((time.monotonic() - began_at) * 1000),
            )
            return response
        finally:
            self._in_progress -= 1

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        if not request.raw_path.startswith("/"):
            return failure(400, "The request must name a path on this server.")
        upstream = self._api_url
        if request.path.startswith("/git/"):
            upstream = self._git_url
        elif request.path.startswith(CALLS_PREFIXES):
            upstream = self._calls_url
        session = self._calls_session if upstream == self._calls_url else self._session
        try:
            async with session.request(
                request.method,
                URL(upstream + request.raw_path, encoded=True),
                headers=forwarded_headers(request, self._trusted),
                data=request_body(request) if request.body_exists else None,
                allow_redirects=False,
            ) as response:
                if upstream in self._unreachable:
                    self._unreachable.discard(upstream)
                    log.info("upstream_reachable", upstream=upstream)
                return await self._forward_response(request, response)
        except BodyTimeoutError as error:
            return failure(408, error.message)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            if upstream not in self._unreachable:
                self._unreachable.add(upstream)
                log.warning("upstream_unreachable", upstream=upstream)
            return failure(
                503,
                "The service is starting or unreachable; send the request again in a moment.",
                headers={"Retry-After": "1"},
            )
        except (aiohttp.ClientError, ConnectionError) as error:
            log.warning("upstream_disconnected", upstream=upstream, error=type(error).__name__)
            return failure(
                502,
                "The service closed the connection before it responded. Check whether the request was carried out "
                "before you send it again.",
            )

    async def _forward_response(self, request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=end_to_end(upstream.headers)
        )
        if self._is_draining:
            response.force_close()
        try:
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except ConnectionResetError:
            log.debug("caller_disconnected", path=request.path)
        except aiohttp.ClientError as error:
            # An incomplete response must not look complete: disconnect, as the service did.
            log.warning("response_interrupted", path=request.path, error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        read_bufsize=CHUNK_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


async def request_body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the request's body as it arrives, after "100 Continue" for a caller that expects it.

    Raises:
        BodyTimeoutError: nothing arrived for too long.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while True:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise BodyTimeoutError(
                f"No byte of the body arrived for {BODY_TIMEOUT_SECONDS} seconds; send the request again."
            ) from None
        if not chunk:
            return
        yield chunk


def forwarded_headers(request: web.BaseRequest, trusted: tuple[str, ...] = ()) -> CIMultiDict[str]:
    """Return the caller's end-to-end headers, with the caller's address in those that only the gateway may set.

    The X-Forwarded-For of a peer in a `trusted` network is kept in front.
    """
    headers = end_to_end(request.headers)
    for name in [
        name for name in headers if name.lower() in REMOVED_HEADERS or name.lower().startswith("x-forwarded-")
    ]:
        headers.popall(name, None)
    peer = request.remote or "unknown"
    hops = request.headers.getall("X-Forwarded-For", []) if is_in(peer, trusted) else []
    headers["X-Forwarded-For"] = ", ".join([*hops, peer])
    headers["X-Forwarded-Proto"] = "http"
    if host := request.headers.get("Host"):
        headers["X-Forwarded-Host"] = host
    return headers


def end_to_end(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> CIMultiDict[str]:
    """Return the headers without those for one connection only (RFC 9110, section 7.6.1)."""
    listed = {part.strip().lower() for value in headers.getall("Connection", []) for part in value.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | listed)


def failure(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error in the shape that all errors of the API have."""
    request_id = uuid.uuid4().hex
    response = web.json_response(
        {"error": {"id": request_id, "code": int(Code.INVALID_REQUEST), "message": message}},
        status=status,
        headers={"X-Request-Id": request_id, "Cache-Control": "no-store", "Server": "longshore", **(headers or {})},
    )
    response.force_close()
    return response


class JsonRequestHandler(RequestHandler):
    """A connection whose own errors, such as invalid HTTP, have the shape of the API's errors."""

    __slots__ = ()

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


class GatewayServer(web.Server):
    """Creates the handler of each connection."""

    @override
    def __call__(self) -> RequestHandler:
        return JsonRequestHandler(self, loop=self._loop, **self._kwargs)


async def serve(configured: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain for at most `shutdown_seconds`.

    Raises:
        OSError: the gateway cannot listen on the address.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(configured):
        await stop.wait()


@contextlib.asynccontextmanager
async def listening(configured: Settings) -> AsyncIterator[int]:
    """Run the gateway while the block runs, and give the port that it listens on."""
    gateway = Gateway(
        api_url=configured.resolved_api_url,
        git_url=configured.resolved_git_url,
        calls_url=configured.resolved_calls_url,
        trusted_proxies=configured.trusted_proxies,
    )
    server = GatewayServer(
        gateway.handle,
        handler_cancellation=True,  # the request to the service ends when its caller disconnects
        auto_decompress=False,
        access_log=None,
        keepalive_timeout=IDLE_CLIENT_TIMEOUT_SECONDS,
        read_bufsize=CHUNK_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, configured.host, configured.port)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        # cleanup() alone would drop the rest of the bodies that are being sent.
        await site.stop()
        await gateway.drain(seconds=configured.shutdown_seconds)
        await runner.cleanup()
        await gateway.close()
