"""An HTTP forward proxy (RFC 9110 section 3.7): absolute URLs for plain HTTP, CONNECT for TLS."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from typing_extensions import override

from dev.services.server_thread import serve_in_thread

PIECE_BYTES = 65_536


class ForwardProxy:
    """The address of the proxy and the requests that it saw."""

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[str] = []
        """`METHOD target` of each request."""
        self.authorizations: set[str] = set()
        """Values of `Proxy-Authorization`."""


@contextmanager
def forward_proxy() -> Iterator[ForwardProxy]:
    """Run a proxy on a loopback port."""
    proxy = ForwardProxy()

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            """Forward the request unchanged on a connection of its own."""
            self._note()
            parts = urlsplit(self.path)
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            kept = [
                f"{name}: {value}"
                for name, value in self.headers.items()
                if name.lower() not in ("connection", "proxy-authorization")
            ]
            head = "\r\n".join([f"{self.command} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
            with socket.create_connection((parts.hostname or "", parts.port or 80)) as target:
                target.sendall(head.encode())
                left = int(self.headers.get("Content-Length", "0"))
                while left:
                    piece = self.rfile.read(min(left, PIECE_BYTES))
                    target.sendall(piece)
                    left -= len(piece)
                while piece := target.recv(PIECE_BYTES):
                    self.wfile.write(piece)
            self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass_on  # noqa: N815 - the library names them

        def do_CONNECT(self) -> None:
            self._note()
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as target:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pump, args=(target, self.connection), daemon=True)
                back.start()
                _pump(self.connection, target)
                back.join()
            self.close_connection = True

        def _note(self) -> None:
            proxy.requests.append(f"{self.command} {self.path}")
            proxy.authorizations.add(self.headers.get("Proxy-Authorization", ""))

        @override
        def log_message(self, *_arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.host = f"127.0.0.1:{server.server_port}"
    with serve_in_thread(server):
        yield proxy


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
