"""Forward requests to the services, so that a slow client does not keep a service busy."""

import asyncio
import contextlib
import time

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from api.errors import api_error
from api.gateway.bodies import BodyTooLargeError, InvalidBodyError, RequestBody
from api.gateway.clients import Client, Clients, RequestCounts
from api.gateway.headers import end_to_end, forwarded_headers
from api.gateway.pace import Buffers, Pace, Spool, TooSlowError
from api.gateway.responses import EVENT_STREAM, failure, relay_at_client_speed, relay_at_service_speed, send
from api.gateway.services import Service, Services, is_event_stream, is_git, is_health, prefers_wait
from api.proxy_headers import OWNER_HEADER
from shared.errors import LimitReachedError, UnavailableError
from shared.settings import Settings

log = structlog.get_logger(__name__)

DRAIN_POLL_INTERVAL_SECONDS = 0.05
MAX_ABANDONED_SECONDS = 3600
"""How long a request whose client has left counts for that client: longer than calls last."""
TOO_MANY_WAIT = "Too many of your requests wait for jobs; retry later, or use GET /v1/jobs/ID."


class Gateway:
    """Forwards requests to the services, and counts those in progress."""

    def __init__(self, configured: Settings) -> None:
        self._settings = configured
        self._clients = Clients(configured.trusted_proxies)
        self._counts = RequestCounts()
        self._buffers = Buffers(max_bytes=configured.gateway_buffer_bytes)
        self._in_progress = 0
        self._is_draining = False
        self._unreachable: set[str] = set()
        self._services = Services(configured)
        self._abandoned: set[asyncio.Task[web.StreamResponse]] = set()
        """Exchanges with services whose clients have left."""

    async def close(self) -> None:
        for exchange in self._abandoned:
            exchange.cancel()
        await self._services.close()

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
            response = await self._count_and_respond(request)
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

    async def _count_and_respond(self, request: web.BaseRequest) -> web.StreamResponse:
        client = self._clients.identify(request)
        try:
            with contextlib.ExitStack() as held:
                if not is_health(request):
                    held.enter_context(self._counts.counted(client))
                spool = held.enter_context(contextlib.closing(Spool(self._buffers, client.name)))
                pace = self._pace(total_seconds=None if is_git(request) else self._settings.body_timeout_seconds)
                body = RequestBody(request, pace, spool)
                response = await self._respond(request, client, body)
                await self._finish(request, response, body)
                return response
        except (LimitReachedError, UnavailableError) as error:
            return _busy(error, request)

    async def _finish(self, request: web.BaseRequest, response: web.StreamResponse, body: RequestBody) -> None:
        """Send a response of the gateway's own, and read what the client still sends, so that it gets the response."""
        pace = self._pace(total_seconds=self._settings.body_timeout_seconds)
        if not response.prepared:
            await send(request, response, pace)
        transport = request.transport
        if request.content.is_eof() or transport is None or transport.is_closing():
            return
        if not response.keep_alive:
            transport.write_eof()
        if body.is_asked_for and not body.is_slow:
            with contextlib.suppress(TooSlowError, InvalidBodyError):
                await body.discard(pace)

    async def _respond(self, request: web.BaseRequest, client: Client, body: RequestBody) -> web.StreamResponse:
        problem = _find_problem(request)
        if problem is not None:
            return failure(400, problem)
        service = self._services.find(request)
        is_text = is_git(request)
        try:
            if service.max_body_bytes is None:
                await body.read_beginning()
            else:
                await body.read_whole(service.max_body_bytes)
            async with contextlib.AsyncExitStack() as turn:
                is_waiting = await self._take_turn(turn, service, request, client)
                forwarding = self._exchange(request, client, body, service, turn.pop_all(), is_waiting=is_waiting)
                exchange = asyncio.create_task(forwarding)
            may_be_abandoned = service.max_body_bytes is not None and not is_waiting
            return await self._unless_abandoned(exchange, body, may_be_abandoned=may_be_abandoned)
        except BodyTooLargeError as error:
            return failure(413, error.message, is_text=is_text)
        except TooSlowError:
            return failure(
                408,
                "The body arrived too slowly; send the request again over a faster connection.",
                is_text=is_text,
            )
        except InvalidBodyError:
            return failure(400, "This is not a valid HTTP request.", is_text=is_text)
        except (LimitReachedError, UnavailableError) as error:
            return _busy(error, request)

    async def _unless_abandoned(
        self, exchange: "asyncio.Task[web.StreamResponse]", body: RequestBody, *, may_be_abandoned: bool
    ) -> web.StreamResponse:
        """Wait for an exchange with a service. It continues when the client leaves, if the service continues too.

        Otherwise a client could exceed its share of a service's threads by leaving again and again. The git service
        and requests that wait for jobs end with the connection.
        """
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            if may_be_abandoned and body.is_sent:
                self._abandon(exchange)
            else:
                exchange.cancel()
            raise

    def _abandon(self, exchange: "asyncio.Task[web.StreamResponse]") -> None:
        """Let an exchange go on without its client. The timer must not keep it in memory after its end."""
        timer = asyncio.get_running_loop().call_later(MAX_ABANDONED_SECONDS, exchange.cancel)

        def forget(ended: "asyncio.Task[web.StreamResponse]") -> None:
            timer.cancel()
            self._abandoned.discard(ended)

        self._abandoned.add(exchange)
        exchange.add_done_callback(forget)

    async def _take_turn(
        self, turn: contextlib.AsyncExitStack, service: Service, request: web.BaseRequest, client: Client
    ) -> bool:
        """Wait until fewer requests of the client are in progress; return whether this one may wait for jobs.

        Raises:
            LimitReachedError: they did not end in time.
            UnavailableError: the client has too many event streams.
        """
        if is_health(request):
            return False
        is_stream = is_event_stream(request)
        if is_stream or prefers_wait(request):
            wait = service.waits.try_turn(client)
            if wait is not None:
                await turn.enter_async_context(wait)
                return True
            if is_stream:
                raise UnavailableError(TOO_MANY_WAIT)
        await turn.enter_async_context(service.turns.turn(client))
        return False

    async def _exchange(
        self,
        request: web.BaseRequest,
        client: Client,
        body: RequestBody,
        service: Service,
        turn: contextlib.AsyncExitStack,
        *,
        is_waiting: bool,
    ) -> web.StreamResponse:
        """Send a request to a service and its response to the client. Release `turn` when the service has ended."""
        headers = forwarded_headers(request, self._settings.trusted_proxies)
        if not is_waiting and prefers_wait(request):
            headers.popall("Prefer", None)  # a client can have removed it with `Connection`
        if request.body_exists and body.length is not None:
            headers["Content-Length"] = str(body.length)
        try:
            async with (
                turn,
                service.session.request(
                    request.method,
                    URL(service.url + request.raw_path, encoded=True),
                    headers=headers,
                    data=body.stream() if request.body_exists else None,
                    allow_redirects=False,
                ) as response,
            ):
                if service.url in self._unreachable:
                    self._unreachable.discard(service.url)
                    log.info("upstream_reachable", upstream=service.url)
                self._clients.learn(client, owner=response.headers.get(OWNER_HEADER), status=response.status)
                return await self._forward_response(request, response, client, service, turn)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            if service.url not in self._unreachable:
                self._unreachable.add(service.url)
                log.warning("upstream_unreachable", upstream=service.url)
            return failure(
                503,
                "The service is starting or unreachable; send the request again in a moment.",
                headers={"Retry-After": "1"},
                is_text=is_git(request),
            )
        except (aiohttp.ClientError, ConnectionError) as error:
            if body.error is not None:
                raise body.error from None
            log.warning("upstream_disconnected", upstream=service.url, error=type(error).__name__)
            return failure(
                502,
                "The service closed the connection before it responded. Check whether the request was carried out "
                "before you send it again.",
                is_text=is_git(request),
            )

    async def _forward_response(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        client: Client,
        service: Service,
        turn: contextlib.AsyncExitStack,
    ) -> web.StreamResponse:
        headers = end_to_end(upstream.headers)
        headers.popall(OWNER_HEADER, None)
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
        if self._is_draining:
            response.force_close()
        pace = self._pace()
        try:
            await response.prepare(request)
            if service.max_body_bytes is None or upstream.content_type == EVENT_STREAM:
                await relay_at_client_speed(upstream, response, pace)
            else:
                with contextlib.closing(Spool(self._buffers, client.name)) as spool:
                    await relay_at_service_speed(upstream, response, pace, spool, turn.aclose)
        except ConnectionResetError:
            log.debug("caller_disconnected", path=request.path)
        except TooSlowError:
            log.info("caller_reads_too_slowly", path=request.path)
            _abort(request)
        except aiohttp.ClientError as error:
            # An incomplete response must not look complete: disconnect, as the service did.
            log.warning("response_interrupted", path=request.path, error=type(error).__name__)
            _abort(request)
        return response

    def _pace(self, *, total_seconds: float | None = None) -> Pace:
        return Pace(
            grace_seconds=self._settings.client_grace_seconds,
            bytes_per_second=self._settings.client_min_bytes_per_second,
            total_seconds=total_seconds,
        )


def _find_problem(request: web.BaseRequest) -> str | None:
    if not request.raw_path.startswith("/"):
        return "The request must name a path on this server."
    if len(request.headers.getall("Idempotency-Key", [])) > 1:  # a service would join them to one
        return "The request has more than one Idempotency-Key; send one."
    return None


def _busy(error: LimitReachedError | UnavailableError, request: web.BaseRequest) -> web.Response:
    return failure(api_error(error).status, error.message, headers={"Retry-After": "1"}, is_text=is_git(request))


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
