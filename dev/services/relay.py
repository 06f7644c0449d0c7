"""A way to an HTTP server that sees what goes through, and may answer in its place."""

import http.client
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dev.services.serving import serve_in_thread

_TIMEOUT_SECONDS = 60
_HOP_BY_HOP = ("content-length", "transfer-encoding", "connection")


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


Look = Callable[[str, str, bytes], Reply | None]
"""Is shown method, address and body of each request, and gives the answer, or None to pass it on."""


@contextmanager
def relay(target: str, look: Look) -> Iterator[str]:
    """Pass requests on to the server at `target` (host:port) for the length of the block; where it listens, alike."""
    handler = type("Handler", (_Handler,), {"target": target, "look": staticmethod(look)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    with serve_in_thread(server):
        yield f"127.0.0.1:{server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    target: str
    look: Look
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self._body()
        self._answer(self.look(self.command, self.path, body) or self._passed_on(body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - the library names them

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _passed_on(self, body: bytes) -> Reply:
        connection = http.client.HTTPConnection(self.target, timeout=_TIMEOUT_SECONDS)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        reply = Reply(answer.status, answer.getheaders(), answer.read())
        connection.close()
        return reply

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        kept = {name: value for name, value in reply.headers if name.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            kept["Content-Length"] = str(len(reply.body))
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""
