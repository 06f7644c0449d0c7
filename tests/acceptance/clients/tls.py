"""TLS in front of a system, under public names that no resolver knows.

The names lead here by a proxy: clients that get `HTTPS_PROXY` ask it for a connection to `HOST:443` (CONNECT, RFC 9110,
9.3.6), and it connects all of them to the one server of TLS here. So clients use real names and the real port, and
nothing of them or of this machine is changed.
"""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dev.services.certificates import write_server_certificate

API_HOST = "api.longshore.test"
GIT_HOST = "git.longshore.test"
_CHUNK_BYTES = 64 * 1024
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class PublicNames:
    """How clients reach the names, and the certificate of the authority that they have to trust."""

    proxy_url: str
    authority: Path


@contextmanager
def public_names(target_url: str, directory: Path) -> Iterator[PublicNames]:
    """Answer for `API_HOST` and `GIT_HOST` during the block, with TLS, in front of the server at `target_url`."""
    certificate = write_server_certificate(directory, names=(API_HOST, GIT_HOST))
    authority = directory / "authority.pem"
    authority.write_text(certificate.authority_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    target = urlsplit(target_url)

    async def to_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, str(target.hostname), target.port or 80)

    async def start() -> tuple[asyncio.Server, asyncio.Server]:
        tls = await asyncio.start_server(to_target, "127.0.0.1", 0, ssl=context)
        tls_port = tls.sockets[0].getsockname()[1]

        async def to_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith((f"CONNECT {API_HOST}:443 ".encode(), f"CONNECT {GIT_HOST}:443 ".encode())), head
            writer.write(_CONNECTED)
            await _join(reader, writer, "127.0.0.1", tls_port)

        return tls, await asyncio.start_server(to_tls, "127.0.0.1", 0)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        servers = asyncio.run_coroutine_threadsafe(start(), loop).result()
        yield PublicNames(f"http://127.0.0.1:{servers[1].sockets[0].getsockname()[1]}", authority)
        asyncio.run_coroutine_threadsafe(_stop(servers), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(servers: tuple[asyncio.Server, asyncio.Server]) -> None:
    for server in servers:
        server.close()
    connections = asyncio.all_tasks() - {asyncio.current_task()}
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Connect to a server, and copy in both directions until both are closed."""
    server_reader, server_writer = await asyncio.open_connection(host, port)
    with suppress(ConnectionError, ssl.SSLError):
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
