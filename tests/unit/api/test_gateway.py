"""The gateway before stand-in services: both ways, as it comes, and honest when a service is away."""

import asyncio
import gzip
import io
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from api.gateway.bodies import PREFIX_BYTES
from api.gateway.services import is_event_stream
from tests.gateway import SECONDS, Handler, Seen, gateway, noting, raw, run, service

CALLS_AS_CLIENTS_WRITE_THEM = ["/v1/algo/o/n/", "/v1/algo/o/n//", "/v1/algo/algo://o/n", "/v1/requests/x/"]


@pytest.mark.parametrize("path", ["/v1/jobs/x/events", "/v1/jobs/x/events/", "/v1/jobs/x/events//?a=1"])
def test_an_event_stream_counts_as_one_with_slashes_at_its_end_too(path: str) -> None:
    assert is_event_stream(make_mocked_request("GET", path))
    assert not is_event_stream(make_mocked_request("DELETE", path))


def test_git_goes_to_git_and_calls_to_calls_and_all_else_to_the_api() -> None:
    api, git, calls = Seen(), Seen(), Seen()

    async def scenario() -> None:
        async with (
            service(noting(api)) as api_port,
            service(noting(git)) as git_port,
            service(noting(calls)) as calls_port,
            gateway(api=api_port, git=git_port, calls=calls_port) as port,
        ):
            for path in (
                *("/git/o/n.git/info/refs?service=x", "/v1/git/x", "/gitter", "/%67it/x", "/"),
                *("/v1/algo/o/n/1.*?timeout=3", "/v1/requests/x", "/v1/algorithms/o/n", "/v1/algo", "/v1/%61lgo/o/n"),
                *CALLS_AS_CLIENTS_WRITE_THEM,
            ):
                await raw(port, f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())

    run(scenario)
    assert git.paths == ["/git/o/n.git/info/refs?service=x", "/%67it/x"]
    assert calls.paths == [
        "/v1/algo/o/n/1.*?timeout=3",
        "/v1/requests/x",
        "/v1/%61lgo/o/n",
        *CALLS_AS_CLIENTS_WRITE_THEM,
    ]
    assert api.paths == ["/v1/git/x", "/gitter", "/", "/v1/algorithms/o/n", "/v1/algo"]


@pytest.mark.parametrize("path", ["/a%2Fb/%2e%2e/c?x=%20+&y", "/a/../b/./c", "//double//", "/v1/%C3%A9?q=%00"])
def test_a_path_passes_as_it_was_written(path: str) -> None:
    seen = Seen()

    async def scenario() -> None:
        async with service(noting(seen)) as api_port, gateway(api=api_port) as port:
            await raw(port, f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())

    run(scenario)
    assert seen.paths == [path]


def test_headers_of_the_connection_and_what_a_caller_claims_of_itself_are_dropped() -> None:
    seen = Seen()
    sent = (
        b"POST /x HTTP/1.1\r\nHost: public.example.com\r\nConnection: close, X-Private\r\nX-Private: 1\r\n"
        b"TE: trailers\r\nProxy-Authorization: Basic eDp5\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: evil.example.com\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=10.0.0.1\r\n"
        b"X-Real-IP: 10.0.0.1\r\nAuthorization: Simple key\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 2\r\n\r\nhi"
    )

    async def scenario() -> bytes:
        answer = web.Response(headers={"X-Kept": "1", "Keep-Alive": "timeout=5", "Set-Cookie": "a=b"})
        async with service(noting(seen, lambda: answer)) as api_port, gateway(api=api_port) as port:
            return await raw(port, sent)

    answered = run(scenario)
    headers = seen.headers[0]
    assert headers["Host"] == headers["X-Forwarded-Host"] == "public.example.com"
    assert headers.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert headers.getall("X-Forwarded-Proto") == ["http"]
    assert headers["Authorization"] == "Simple key"
    assert headers.getall("X-Twice") == ["1", "2"]
    dropped = ("X-Private", "TE", "Proxy-Authorization", "X-Forwarded-Prefix", "Forwarded", "X-Real-IP", "User-Agent")
    assert not [name for name in dropped if name in headers]
    assert seen.bodies == [b"hi"]
    assert b"X-Kept: 1" in answered
    assert b"Keep-Alive" not in answered


@pytest.mark.parametrize(
    ("proxies", "handed_on"), [("127.0.0.0/8", "203.0.113.9, 127.0.0.1"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_only_a_trusted_proxy_says_who_is_behind_it(proxies: str, handed_on: str) -> None:
    seen = Seen()

    async def scenario() -> None:
        async with service(noting(seen)) as api_port, gateway(api=api_port, proxies=proxies) as port:
            await raw(port, b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n")

    run(scenario)
    assert seen.headers[0].getall("X-Forwarded-For") == [handed_on]


def test_a_preference_that_connection_removes_is_not_an_error() -> None:
    """`Connection` can name every header, which is then not forwarded (RFC 9110, section 7.6.1)."""
    seen = Seen()

    async def scenario() -> bytes:
        async with service(noting(seen)) as api_port, gateway(api=api_port) as port:
            return await raw(
                port, b"GET /healthz HTTP/1.1\r\nHost: h\r\nPrefer: wait=1\r\nConnection: close, Prefer\r\n\r\n"
            )

    assert b" 200 " in run(scenario)
    assert "Prefer" not in seen.headers[0]


def test_git_passes_both_ways_piece_by_piece() -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece.upper())
        return response

    async def scenario() -> None:
        async with service(echo) as git_port, gateway(git=git_port) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2 * PREFIX_BYTES)
            writer.write(b"POST /git/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"a" * PREFIX_BYTES + b"one", b"two"):  # each is answered before the next is sent
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await reader.readuntil(piece[-3:].upper())
            writer.write(b"0\r\n\r\n")
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
            writer.close()

    run(scenario)


def test_compressed_bodies_are_left_alone() -> None:
    seen, packed = Seen(), gzip.compress(b"want 0123")

    async def scenario() -> tuple[bytes, str]:
        answer = web.Response(body=packed, headers={"Content-Encoding": "gzip"})
        async with (
            service(noting(seen, lambda: answer)) as git_port,
            gateway(git=git_port) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}", auto_decompress=False) as session,
            session.post("/git/o/n.git/x", data=packed, headers={"Content-Encoding": "gzip"}) as answered,
        ):
            return await answered.read(), answered.headers["Content-Encoding"]

    assert run(scenario) == (packed, "gzip")
    assert seen.bodies == [packed]


def test_a_body_is_asked_for_where_its_sender_waits_for_that() -> None:
    seen = Seen()

    async def scenario() -> bytes:
        async with service(noting(seen)) as api_port, gateway(api=api_port) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n")
            writer.write(b"Connection: close\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body")
            answered = await reader.read()
            writer.close()
            return answered

    assert run(scenario).startswith(b"HTTP/1.1 200 ")
    assert seen.bodies == [b"body"]


def test_a_service_that_is_away_is_503_in_the_shape_of_the_contract() -> None:
    async def scenario() -> None:
        async with (
            gateway() as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            session.post("/v1/registries", json={}) as answered,
        ):
            assert answered.status == 503
            assert answered.headers["Retry-After"] == "1"
            error = (await answered.json())["error"]
            assert set(error) == {"id", "code", "message"}
            assert (error["id"], error["code"]) == (answered.headers["X-Request-Id"], 2015)

    run(scenario)


def test_a_service_that_says_nothing_is_502() -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> int:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with (
            server,
            gateway(api=server.sockets[0].getsockname()[1]) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            session.get("/") as answered,
        ):
            assert "error" in await answered.json()
            return answered.status

    assert run(scenario) == 502


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_half_an_answer_does_not_look_whole(framing: bytes) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(breaking, "127.0.0.1", 0)
        async with server, gateway(api=server.sockets[0].getsockname()[1]) as port, aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
                async with session.get(f"http://127.0.0.1:{port}/") as answered:
                    await answered.read()

    run(scenario)


def test_the_request_of_a_git_client_that_leaves_ends() -> None:
    async def scenario() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def slow(_request: web.BaseRequest) -> web.StreamResponse:
            begun.set()
            try:
                await asyncio.sleep(SECONDS)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return web.Response()

        async with service(slow) as git_port, gateway(git=git_port) as port:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /git/x HTTP/1.1\r\nHost: h\r\n\r\n")
            await begun.wait()
            writer.close()
            await cancelled.wait()

    run(scenario)


def test_a_refusal_arrives_though_the_body_was_not_read() -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": "too large"}, status=413)

    async def scenario() -> int:
        async with (
            service(refuse) as api_port,
            gateway(api=api_port) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            session.post("/", data=io.BytesIO(b"x" * 3_000_000)) as answered,
        ):
            await answered.read()
            return answered.status

    assert run(scenario) == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"this is no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: a\r\nidempotency-key:\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_cannot_be_handed_on_is_refused_in_the_shape_of_the_contract(sent: bytes) -> None:
    async def scenario() -> bytes:
        async with service(noting(Seen())) as api_port, gateway(api=api_port) as port:
            return await raw(port, sent)

    head, _, body = run(scenario).partition(b"\r\n\r\n")
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert json.loads(body)["error"]["code"] == 2015


def test_calls_share_a_connection_and_nothing_else_does() -> None:
    connections: dict[str, list[int | None]] = {"calls": [], "api": []}

    def note(service: str) -> Handler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            await request.content.read()
            assert request.transport is not None
            connections[service].append(request.transport.get_extra_info("peername")[1])
            return web.Response()

        return handle

    async def scenario() -> None:
        async with (
            service(note("calls")) as calls_port,
            service(note("api")) as api_port,
            gateway(calls=calls_port, api=api_port) as port,
            aiohttp.ClientSession() as session,
        ):
            for path in ("/v1/algo/o/n", "/v1/jobs") * 3:
                async with session.post(f"http://127.0.0.1:{port}{path}", data=b"1") as answer:
                    assert answer.status == 200

    run(scenario)
    assert len(set(connections["calls"])) == 1
    assert len(set(connections["api"])) == 3


def test_what_runs_ends_before_the_gate_does() -> None:
    async def scenario() -> bytes:
        begun, go_on = asyncio.Event(), asyncio.Event()
        received: list[bytes] = []

        async def slow(request: web.BaseRequest) -> web.StreamResponse:
            begun.set()
            received.append(await request.content.read())
            return web.Response(text="done")

        async with service(slow) as git_port:
            async with gateway(git=git_port) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = b"POST /git/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (PREFIX_BYTES + 4)
                writer.write(head + b"x" * PREFIX_BYTES)
                await begun.wait()

                async def second_half() -> None:
                    await go_on.wait()
                    with pytest.raises(ConnectionRefusedError):
                        await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"half")

                rest = asyncio.create_task(second_half())
                asyncio.get_running_loop().call_later(0.2, go_on.set)  # while the gateway drains, below
            answered = await reader.read()
            await rest
            writer.close()
            assert received == [b"x" * PREFIX_BYTES + b"half"]
            return answered

    assert run(scenario).endswith(b"done")
