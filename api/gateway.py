"""The gateway: one public address before the git service, the calls of algorithms, and the API for everything else.

A reverse proxy that streams both ways and keeps nothing: bodies pass as they come, with the pace of the slower side
(RFC 9110, section 7.6: what an intermediary forwards, and what it does not).
"""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from api.error_codes import Code
from api.proxy_headers import is_in
from shared.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5
SILENT_BODY_SECONDS = 60
"""A caller that sends a body, and then nothing for this long, is given up: its request holds a thread of the API."""
IDLE_CONNECTION_SECONDS = 75
KEPT_SECONDS = 1.0
"""How long an idle connection to the service of calls is kept."""
HEADER_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection")
) | {"te", "trailer", "transfer-encoding", "upgrade"}
OF_CALLS = ("/v1/algo/", "/v1/requests/")
OURS = frozenset(("expect", "forwarded", "x-real-ip"))
"""What a caller may not tell the services behind the gateway; with it goes every X-Forwarded-… header."""


class ClientSilentError(Exception):
    """The caller stopped sending in the middle of a body."""


class Gateway:
    """Hands requests on, and counts those that are under way."""

    def __init__(self, *, api_url: str, git_url: str, calls_url: str, trusted_proxies: tuple[str, ...] = ()) -> None:
        self._trusted = trusted_proxies
        self._api_url = api_url.rstrip("/")
        self._git_url = git_url.rstrip("/")
        self._calls_url = calls_url.rstrip("/")
        self._under_way = 0
        self._stopping = False
        self._away: set[str] = set()
        # A fresh connection for each request: one that was kept may be closed by the other side at that moment, and a
        # POST must not be sent twice to find out.
        self._session = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        # Calls are many and short: a tenth of a warm one was making its connection. The service keeps them far longer
        # than this, so that one is closed under a call only where the service itself ends.
        self._session_for_calls = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS))

    async def close(self) -> None:
        """Close the connections to the services."""
        await self._session.close()
        await self._session_for_calls.close()

    async def drain(self, *, seconds: float) -> None:
        """Let the requests that are under way end, for so long at most."""
        self._stopping = True
        deadline = time.monotonic() + seconds
        while self._under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Hand one request on and its answer back."""
        began = time.monotonic()
        self._under_way += 1
        try:
            response = await self._forward(request)
            log.debug(
                "handed on",
                method=request.method,
                path=request.path,
                status=response.status,
                ms=round((time.monotonic() - began) * 1000),
            )
            return response
        finally:
            self._under_way -= 1

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        if not request.raw_path.startswith("/"):
            return failure(400, "The request must name a path on this server.")
        upstream = self._upstream_of(request.path)
        session = self._session_for_calls if upstream == self._calls_url else self._session
        try:
            async with session.request(
                request.method,
                URL(upstream + request.raw_path, encoded=True),
                headers=forwarded_headers(request, self._trusted),
                data=sent_body(request) if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                self._note_present(upstream)
                return await self._answer(request, answer)
        except ClientSilentError:
            return failure(408, f"The body stopped coming for {SILENT_BODY_SECONDS} seconds; send the request again.")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._note_away(upstream)
            return failure(
                503, "The service is starting or away; send it again in a moment.", headers={"Retry-After": "1"}
            )
        except (aiohttp.ClientError, ConnectionError) as error:
            log.warning("the service behind the gateway broke off", upstream=upstream, error=type(error).__name__)
            return failure(502, "The service broke off before it answered; look whether it was done, then send again.")

    def _upstream_of(self, path: str) -> str:
        if path.startswith("/git/"):
            return self._git_url
        return self._calls_url if path.startswith(OF_CALLS) else self._api_url

    async def _answer(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers))
        if self._stopping:
            response.force_close()
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except ConnectionResetError:
            log.debug("the caller went away", path=request.path)
        except aiohttp.ClientError as error:
            # Half an answer must not look like a whole one: break off as the service did.
            log.warning("an answer broke off", path=request.path, error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response

    def _note_away(self, upstream: str) -> None:
        if upstream not in self._away:
            self._away.add(upstream)
            log.warning("a service behind the gateway cannot be reached", upstream=upstream)

    def _note_present(self, upstream: str) -> None:
        if upstream in self._away:
            self._away.discard(upstream)
            log.info("the service behind the gateway is back", upstream=upstream)


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        read_bufsize=CHUNK_BYTES,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
    )


async def sent_body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The request's body as it comes. Whoever waits for "100 Continue" gets it when the service is connected.

    Raises:
        ClientSilentError: nothing came for too long.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while True:
        try:
            async with asyncio.timeout(SILENT_BODY_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise ClientSilentError from None
        if not chunk:
            return
        yield chunk


def forwarded_headers(request: web.BaseRequest, trusted: tuple[str, ...] = ()) -> CIMultiDict[str]:
    """The caller's headers without those of its connection, and with where it came from, which only we say.

    What a peer in a `trusted` network says of that is kept in front.
    """
    headers = end_to_end(request.headers)
    for name in [name for name in headers if name.lower() in OURS or name.lower().startswith("x-forwarded-")]:
        headers.popall(name, None)
    peer = request.remote or "unknown"
    hops = request.headers.getall("X-Forwarded-For", []) if is_in(peer, trusted) else []
    headers["X-Forwarded-For"] = ", ".join([*hops, peer])
    headers["X-Forwarded-Proto"] = "http"
    if host := request.headers.get("Host"):
        headers["X-Forwarded-Host"] = host
    return headers


def end_to_end(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> CIMultiDict[str]:
    """Headers without those that are for one connection only (RFC 9110, section 7.6.1)."""
    named = {part.strip().lower() for value in headers.getall("Connection", []) for part in value.split(",")}
    left = ((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named)
    return CIMultiDict(left)


def failure(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as the contract shapes it."""
    request_id = uuid.uuid4().hex
    response = web.json_response(
        {"error": {"id": request_id, "code": int(Code.INVALID_REQUEST), "message": message}},
        status=status,
        headers={"X-Request-Id": request_id, "Cache-Control": "no-store", "Server": "longshore", **(headers or {})},
    )
    response.force_close()
    return response


class JsonRequestHandler(RequestHandler):
    """A connection whose errors, such as a request that is no HTTP, are answered in the contract's shape too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be read or handled."""
        if status >= 500:
            log.error("the gateway failed", exc_info=exc)
            return failure(status, "Something went wrong here; the log has it.")
        return failure(status, "This is no HTTP request that can be read.")


class GatewayServer(web.Server):
    """Makes the connections."""

    def __call__(self) -> RequestHandler:
        """A handler for a new connection."""
        return JsonRequestHandler(self, loop=self._loop, **self._kwargs)


async def serve(configured: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs end for as long as `shutdown_seconds`.

    Raises:
        OSError: the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with listening(configured):
        await stop.wait()


@contextlib.asynccontextmanager
async def listening(configured: Settings) -> AsyncIterator[int]:
    """The gateway for the length of the block; gives the port that it listens on."""
    gateway = Gateway(
        api_url=configured.resolved_api_url,
        git_url=configured.resolved_git_url,
        calls_url=configured.resolved_calls_url,
        trusted_proxies=configured.trusted_proxies,
    )
    options: dict[str, Any] = {
        "auto_decompress": False,
        "access_log": None,
        "keepalive_timeout": IDLE_CONNECTION_SECONDS,
        "read_bufsize": CHUNK_BYTES,
        "max_line_size": HEADER_BYTES,
        "max_field_size": HEADER_BYTES,
    }
    # handler_cancellation: a caller that goes away takes its request to the service with it.
    server = GatewayServer(gateway.handle, handler_cancellation=True, **options)
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, configured.host, configured.port)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        # Not left to cleanup(): it would drop the rest of the bodies that are on their way.
        await site.stop()
        await gateway.drain(seconds=configured.shutdown_seconds)
        await runner.cleanup()
        await gateway.close()
