"""Requests to servers that close connections at a bad moment, over plain HTTP and over TLS."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dev.services.certificates import write_server_certificate
from shared.net.connections import tls_context
from shared.net.http import HttpTransport, RequestBody, Timeouts
from tests.environment import longshore_environment

BODY_BYTES = 64 * 1024 * 1024
"""More than socket buffers hold: the sender notices that the server does not read."""
PIECE = bytes(64 * 1024)
LINGERS_SECONDS = 0.3


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path, tables=False):
        yield


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def server(
    scheme: str, directory: Path, serve: Callable[[socket.socket, int], None]
) -> Iterator[tuple[HttpTransport, str]]:
    """Yield a transport, and the URL of a server that calls `serve` with the number of earlier connections."""
    certificate = write_server_certificate(directory / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            number = 0
            with suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    with context.wrap_socket(taken, server_side=True) if scheme == "https" else taken as connection:
                        serve(connection, number)
                    number += 1

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        transport = HttpTransport(tls_context(ca_certificate=certificate.authority_pem), Timeouts())
        yield transport, f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"
        transport.close()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def head(connection: socket.socket) -> bytes:
    """Read the head of a request, and nothing of its body."""
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        read += connection.recv(1)
    return read


@pytest.mark.parametrize("status", [401, 413, 429])
def test_a_response_that_comes_before_the_body_was_read_is_received(scheme: str, tmp_path: Path, status: int) -> None:
    def refuse(connection: socket.socket, _number: int) -> None:
        head(connection)
        connection.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        # Go's servers do the same, so that the response arrives before the reset that follows.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        time.sleep(LINGERS_SECONDS)

    body = RequestBody(BODY_BYTES, lambda: (PIECE for _ in range(BODY_BYTES // len(PIECE))))
    with server(scheme, tmp_path, refuse) as (transport, url):
        assert transport.request("PATCH", url, {}, body).status == status


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(scheme: str, tmp_path: Path) -> None:
    """The server closes its first connection at the second request, without a response."""

    def serve(connection: socket.socket, number: int) -> None:
        head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if number == 0:
            head(connection)

    with server(scheme, tmp_path, serve) as (transport, url):
        for _ in range(2):
            assert transport.request("GET", url, {}).status == 200
