"""A gateway in this process, before stand-in services."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from api.gateway.server import listening
from shared.settings import Settings

SECONDS = 60
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """The requests that a service received."""

    paths: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextlib.asynccontextmanager
async def service(handler: Handler) -> AsyncIterator[int]:
    runner = web.ServerRunner(web.Server(handler, auto_decompress=False, handler_cancellation=True), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def noting(seen: Seen, answer: Callable[[], web.Response] = web.Response) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.paths.append(request.raw_path)
        seen.headers.append(request.headers)
        seen.bodies.append(await request.content.read())
        return answer()

    return handle


@contextlib.asynccontextmanager
async def gateway(
    *, api: int = 1, git: int = 1, calls: int = 1, proxies: str = "", max_connections: int = 100, **changed: Any
) -> AsyncIterator[int]:
    """Yield the port of a gateway. Nothing listens on port 1 of the loopback."""
    configured = Settings(
        port=0,
        host="127.0.0.1",
        api_url=f"http://127.0.0.1:{api}",
        git_url=f"http://127.0.0.1:{git}",
        calls_url=f"http://127.0.0.1:{calls}",
        shutdown_seconds=5,
        trusted_proxies=proxies,
        **changed,
    )
    async with listening(configured, max_connections=max_connections) as port:
        yield port


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(SECONDS):
            return await scenario()

    return asyncio.run(bounded())


async def raw(port: int, sent: bytes) -> bytes:
    """Send some bytes; return the whole response, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answered = await reader.read()
    writer.close()
    return answered
