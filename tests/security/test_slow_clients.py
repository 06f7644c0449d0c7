"""Attacks on the gateway with slow, endless and many requests: no service is blocked, and no other client waits."""

import asyncio
import contextlib
import gc
import io
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from yarl import URL

from api.gateway import server
from api.gateway.bodies import PREFIX_BYTES
from api.proxy_headers import OWNER_HEADER, owner_tag
from tests.gateway import Seen, gateway, noting, raw, run, service
from tests.service.api.invocation import Api

IMPATIENT: dict[str, Any] = {"client_grace_seconds": 0.3}
PATHS = {"api": "/v1/registries", "calls": "/v1/algo/o/n"}
MEGABYTE = 1_000_000


def head(path: str, framing: str, *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: h", framing, *fields, "", ""]).encode()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send a piece now and then, until the server has closed the connection."""
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def dripping(writer: asyncio.StreamWriter, piece: bytes) -> AsyncIterator[None]:
    task = asyncio.create_task(drip(writer, piece))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await task


def error_of(response: bytes) -> tuple[int, dict[str, Any]]:
    """Return the status and the error of a response of the gateway."""
    start, _, body = response.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"id", "code", "message"}
    return int(start.split()[1]), error


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("framing", "piece"), [("Content-Length: 100000", b" "), ("Transfer-Encoding: chunked", b"1\r\n \r\n")]
)
def test_a_body_of_a_byte_now_and_then_does_not_reach_a_service(name: str, framing: str, piece: bytes) -> None:
    seen = Seen()

    async def scenario() -> bytes:
        async with (
            service(noting(seen)) as target,
            gateway(**{name: target}, **IMPATIENT) as port,  # type: ignore[arg-type]
            connected(port) as (reader, writer),
        ):
            writer.write(head(PATHS[name], framing))
            async with dripping(writer, piece):
                return await reader.read()

    status, error = error_of(run(scenario))
    assert (status, error["code"]) == (408, 2015)
    assert seen.paths == []


@pytest.mark.parametrize("ending", [b"1;" + b"x" * 1000, b"0\r\nX-Trailer: 1\r\n"])
def test_chunk_extensions_and_trailers_without_end_do_not_reach_a_service(ending: bytes) -> None:
    seen = Seen()

    async def scenario() -> bytes:
        async with (
            service(noting(seen)) as api,
            gateway(api=api, **IMPATIENT) as port,
            connected(port) as (reader, writer),
        ):
            writer.write(head("/v1/registries", "Transfer-Encoding: chunked") + ending)
            async with dripping(writer, b"X-Trailer: 1\r\n" if ending.startswith(b"0") else b"x"):
                return await reader.read()

    assert error_of(run(scenario))[0] in (400, 408)
    assert seen.paths == []


def test_a_body_that_ends_before_its_length_does_not_reach_a_service() -> None:
    seen = Seen()

    async def scenario() -> None:
        async with (
            service(noting(seen)) as api,
            gateway(api=api) as port,
            connected(port) as (_reader, writer),
        ):
            writer.write(head("/v1/registries", "Content-Length: 100000") + b"half")
            await writer.drain()
            await raw(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")

    run(scenario)
    assert seen.paths == ["/"]


@pytest.mark.parametrize(("name", "size"), [("api", 30 * MEGABYTE), ("calls", 30 * MEGABYTE)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_sender_of_thirty_megabytes_is_told_that_it_is_too_large(name: str, size: int, is_chunked: bool) -> None:
    """It reads nothing before it has sent everything."""
    seen = Seen()
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    piece = b"x" * MEGABYTE
    sent = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece

    async def scenario() -> bytes:
        async with (
            service(noting(seen)) as target,
            gateway(**{name: target}) as port,  # type: ignore[arg-type]
            connected(port) as (reader, writer),
        ):
            writer.write(head(PATHS[name], framing))
            for _ in range(size // MEGABYTE):
                writer.write(sent)
                await writer.drain()
            writer.write(b"0\r\n\r\n" if is_chunked else b"")
            return await reader.read()

    status, error = error_of(run(scenario))
    assert (status, error["code"]) == (413, 2015)
    assert "bytes" in error["message"]
    assert seen.paths == []


def test_a_body_that_is_too_large_is_not_asked_for() -> None:
    async def scenario() -> bytes:
        async with service(noting(Seen())) as api, gateway(api=api) as port:
            return await raw(port, head("/v1/registries", "Content-Length: 30000000", "Expect: 100-continue"))

    assert error_of(run(scenario))[0] == 413


def test_a_body_in_pieces_reaches_a_service_whole() -> None:
    seen = Seen()

    async def scenario() -> None:
        async with service(noting(seen)) as api, gateway(api=api) as port, connected(port) as (reader, writer):
            writer.write(head("/v1/registries", "Transfer-Encoding: chunked"))
            for _ in range(2):
                writer.write(b"%x\r\n%b\r\n" % (PREFIX_BYTES, b"x" * PREFIX_BYTES))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")

    run(scenario)
    assert seen.bodies == [b"x" * 2 * PREFIX_BYTES]
    assert seen.headers[0]["Content-Length"] == str(2 * PREFIX_BYTES)
    assert "Transfer-Encoding" not in seen.headers[0]


def test_headers_that_never_end_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_SECONDS", 0.3)

    async def scenario() -> bytes:
        async with gateway() as port, connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n")
            async with dripping(writer, b"X-More: 1\r\n"):
                return await reader.read()

    assert error_of(run(scenario))[0] == 408


def test_connections_without_a_request_are_closed_for_new_ones() -> None:
    async def scenario() -> bytes:
        async with (
            service(noting(Seen())) as api,
            gateway(api=api, max_connections=8) as port,
            contextlib.AsyncExitStack() as stack,
        ):
            silent = [await stack.enter_async_context(connected(port)) for _ in range(30)]
            for _reader, writer in silent[::2]:
                writer.write(b"GET / HTTP/1.1\r\n")  # the beginning of a request
            return await raw(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")

    assert run(scenario).startswith(b"HTTP/1.1 200 ")


def test_a_slow_push_ends_and_so_does_its_request_to_git() -> None:
    async def scenario() -> bytes:
        begun, left = asyncio.Event(), asyncio.Event()

        async def git(request: web.BaseRequest) -> web.StreamResponse:
            begun.set()
            try:
                await request.content.read()
            except BaseException:
                left.set()
                raise
            return web.Response()

        async with (
            service(git) as target,
            gateway(git=target, **IMPATIENT) as port,
            connected(port) as (reader, writer),
        ):
            writer.write(head("/git/o/n.git/git-receive-pack", f"Content-Length: {2 * PREFIX_BYTES}"))
            writer.write(b"x" * PREFIX_BYTES)
            await begun.wait()
            async with dripping(writer, b"x"):
                response = await reader.read()
            await left.wait()
            return response

    response = run(scenario)
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"text/plain" in response


def test_a_push_may_take_as_long_as_git_reads_slowly() -> None:
    """Only the time of waiting for the client counts."""
    size = 40 * PREFIX_BYTES

    async def scenario() -> bytes:
        received = 0

        async def git(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal received
            await asyncio.sleep(3)  # longer than a client may pause
            async for piece in request.content.iter_any():
                received += len(piece)
            return web.Response(text=str(received))

        async with (
            service(git) as target,
            gateway(git=target, client_grace_seconds=2) as port,
            connected(port) as (reader, writer),
        ):
            writer.write(head("/git/o/n.git/git-receive-pack", f"Content-Length: {size}", "Connection: close"))
            writer.write(b"x" * size)
            return await reader.read()

    assert run(scenario).endswith(str(size).encode())


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/algo/o/n"])
def test_a_service_does_not_wait_for_a_client_that_does_not_read(path: str) -> None:
    async def scenario() -> None:
        has_sent = asyncio.Event()

        async def api(_request: web.BaseRequest) -> web.StreamResponse:
            asyncio.current_task().add_done_callback(lambda _: has_sent.set())  # type: ignore[union-attr]
            return web.Response(body=b"x" * 30 * MEGABYTE)

        async with (
            service(api) as target,
            gateway(api=target, calls=target, client_grace_seconds=1) as port,
            connected(port) as (reader, writer),
        ):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            await has_sent.wait()
            while not any(entry["event"] == "caller_reads_too_slowly" for entry in logged):
                await asyncio.sleep(0.05)
            with pytest.raises(asyncio.IncompleteReadError):  # the gateway does not wait for it either
                await reader.readexactly(30 * MEGABYTE)

    with structlog.testing.capture_logs() as logged:
        run(scenario)


def test_git_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def scenario() -> int:
        has_left, written = asyncio.Event(), 0

        async def git(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal written
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x" * PREFIX_BYTES)
                    written += PREFIX_BYTES
            finally:
                has_left.set()

        async with (
            service(git) as target,
            gateway(git=target, **IMPATIENT) as port,
            connected(port) as (_reader, writer),
        ):
            writer.write(b"GET /git/o/n.git/info/refs HTTP/1.1\r\nHost: h\r\n\r\n")
            await has_left.wait()
            return written

    with structlog.testing.capture_logs() as logged:
        assert 0 < run(scenario) < 64 * MEGABYTE, "what is between git and the client is bounded"
    assert "caller_reads_too_slowly" in {entry["event"] for entry in logged}


def test_an_event_stream_may_be_as_slow_as_its_events() -> None:
    async def scenario() -> bytes:
        async def api(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for _ in range(3):
                await asyncio.sleep(0.4)
                await response.write(b": the job goes on\n\n")
            return response

        async with service(api) as target, gateway(api=target, **IMPATIENT) as port:
            return await raw(port, b"GET /v1/jobs/x/events HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")

    assert run(scenario).count(b"the job goes on") == 3


class Holding:
    """A service that answers only the owner `other` before `released` is set."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.headers: list[Any] = []
        self.released = asyncio.Event()
        self.changed = asyncio.Condition()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.content.read()
        owner = request.headers.get("Authorization", "").partition("-")[0]
        self.headers.append(request.headers)
        if owner != "other" and request.path != "/v1/mine":
            async with self.changed:
                self.held.append(owner)
                self.changed.notify_all()
            await self.released.wait()
        return web.Response(text="done", headers={OWNER_HEADER: owner})

    async def until_held(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.held) >= count)


@contextlib.asynccontextmanager
async def holding_service(**configured: Any) -> AsyncIterator[tuple[Holding, int, aiohttp.ClientSession]]:
    """Yield one that is all services of a gateway, the gateway's port, and a session with it."""
    holding = Holding()
    async with (
        service(holding.handle) as target,
        gateway(api=target, git=target, calls=target, **configured) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield holding, port, session


async def status_of(session: aiohttp.ClientSession, path: str | URL, key: str, **headers: str) -> int:
    async with session.get(path, headers={"Authorization": key, **headers}) as response:
        assert OWNER_HEADER not in response.headers
        await response.read()
        return response.status


async def statuses_beside_another(
    holding: Holding, session: aiohttp.ClientSession, path: str, many: Iterable[Coroutine[Any, Any, int]], *, held: int
) -> list[int]:
    """Send many requests, of which `held` reach the service; meanwhile another owner gets a response for `path`."""
    tasks = [asyncio.create_task(each) for each in many]
    await holding.until_held(held)
    assert await status_of(session, path, "other-key") == 200
    assert len(holding.held) == held
    holding.released.set()
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize(("path", "half"), [("/v1/jobs", 16), ("/v1/algo/o/n", 16), ("/git/o/n.git/info/refs", 32)])
def test_an_owner_with_many_keys_has_half_of_a_service_and_the_rest_waits(path: str, half: int) -> None:
    async def scenario() -> None:
        async with holding_service(api_threads=16, calls_threads=16, git_threads=64) as (holding, _port, session):
            for number in range(4):  # the gateway learns whose keys they are
                assert await status_of(session, "/v1/mine", f"greedy-{number}") == 200
            many = (status_of(session, path, f"greedy-{number % 4}") for number in range(40))
            assert await statuses_beside_another(holding, session, path, many, held=half) == [200] * 40
        assert len(holding.held) == 40

    run(scenario)


@pytest.mark.parametrize("has_body", [False, True])
def test_an_owner_whose_clients_leave_has_half_of_a_service_too(has_body: bool) -> None:
    """The threads of a service do not notice that a client has left."""

    async def scenario() -> None:
        async with holding_service(calls_threads=4) as (holding, port, session):
            for owner in ("greedy-", "other-"):
                assert await status_of(session, "/v1/mine", owner) == 200
            body = b"Content-Length: 4\r\n\r\nbody" if has_body else b"\r\n"
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    _reader, writer = await stack.enter_async_context(connected(port))
                    writer.write(b"POST /v1/algo/o/n HTTP/1.1\r\nHost: h\r\nAuthorization: greedy-\r\n" + body)
                await holding.until_held(4)
            waits = asyncio.create_task(status_of(session, "/v1/algo/o/n", "greedy-"))
            for _ in range(20):
                assert await status_of(session, "/v1/algo/o/n", "other-key") == 200
            assert len(holding.held) == 4
            holding.released.set()
            assert await waits == 200

    run(scenario)


def test_nothing_is_kept_of_requests_whose_clients_left() -> None:
    async def scenario() -> int:
        async with holding_service(calls_threads=20) as (holding, port, _session):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(8):
                    _reader, writer = await stack.enter_async_context(connected(port))
                    writer.write(b"POST /v1/algo/o/n HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
                await holding.until_held(8)
            await until_kept(8)
            holding.released.set()
            await until_kept(0)
            return kept_exchanges()

    assert run(scenario) == 0


def kept_exchanges() -> int:
    """Return how many exchanges with services the gateway keeps, also ended ones."""
    gc.collect()
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
    return sum("Gateway._exchange" in str(each.get_coro()) for each in tasks)


async def until_kept(count: int) -> None:
    while kept_exchanges() != count:
        await asyncio.sleep(0.1)


def test_unknown_keys_share_the_threads_of_their_address() -> None:
    async def scenario() -> None:
        async with holding_service(api_threads=4) as (holding, _port, session):
            assert await status_of(session, "/v1/mine", "other-key") == 200
            invented = (status_of(session, "/v1/jobs", f"invented{number}-") for number in range(20))
            assert await statuses_beside_another(holding, session, "/v1/jobs", invented, held=6) == [200] * 20

    run(scenario)


def test_health_in_another_notation_takes_no_more_places_than_other_requests() -> None:
    """The services have threads for `/readyz` itself only."""

    async def scenario() -> None:
        async with holding_service(api_threads=4) as (holding, _port, session):
            assert await status_of(session, "/v1/mine", "greedy-") == 200
            path = URL("/%72eadyz", encoded=True)
            many = (status_of(session, path, "greedy-") for _ in range(12))
            assert await statuses_beside_another(holding, session, "/v1/mine", many, held=4) == [200] * 12

    run(scenario)


def test_requests_that_wait_for_jobs_leave_threads_for_others() -> None:
    async def scenario() -> None:
        async with holding_service(api_threads=8) as (holding, _port, session):
            assert await status_of(session, "/v1/mine", "greedy-") == 200
            waiting = [
                asyncio.create_task(status_of(session, "/v1/jobs/x/events", "greedy-")),
                *(asyncio.create_task(status_of(session, "/v1/jobs", "greedy-", Prefer="wait=60")) for _ in range(9)),
            ]
            await holding.until_held(10)
            assert await status_of(session, "/v1/jobs/x/events", "greedy-") == 503
            assert await status_of(session, "/v1/mine", "greedy-") == 200
            assert sum("Prefer" in headers for headers in holding.headers) == 5
            holding.released.set()
            assert set(await asyncio.gather(*waiting)) == {200}

    run(scenario)


def test_bodies_that_are_held_for_a_client_are_bounded() -> None:
    """A client may have a quarter of what the gateway holds; another one still finds room."""
    body = b"x" * 9 * 1024**2

    async def scenario() -> list[int]:
        never = asyncio.Event()

        async def calls(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers["Authorization"] != "other-key":
                await never.wait()
            await request.content.read()
            return web.Response()

        async def post(session: aiohttp.ClientSession, key: str) -> int:
            async with session.post("/v1/algo/o/n", data=io.BytesIO(body), headers={"Authorization": key}) as response:
                return response.status

        async with (
            service(calls) as target,
            gateway(calls=target, calls_threads=2, calls_workers=1, gateway_buffer_bytes=64 * 1024**2) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            greedy = [asyncio.create_task(post(session, "greedy-key")) for _ in range(4)]
            done, _ = await asyncio.wait(greedy, return_when=asyncio.FIRST_COMPLETED)
            statuses = [done.pop().result(), await post(session, "other-key")]
            never.set()
            await asyncio.wait(greedy)
            return statuses

    assert run(scenario) == [429, 200]


def test_the_api_tells_the_gateway_whose_key_it_is(acme: Api) -> None:
    """Also when it refuses the request."""
    assert acme.call("GET", "/v1/algorithms/acme/Missing").headers[OWNER_HEADER] == owner_tag("acme")
    assert OWNER_HEADER not in acme.call("GET", "/v1/algorithms/acme/Missing", Authorization="Simple x").headers
