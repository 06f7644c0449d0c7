"""A proxy in front of an HTTP server that sees each request, and may respond in the server's place."""

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import urlsplit

from typing_extensions import override

from dev.services.server_thread import serve_in_thread

_TIMEOUT_SECONDS = 60
_HOP_BY_HOP = ("content-length", "transfer-encoding", "connection")


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


Intercept = Callable[[str, str, bytes], Reply | None]
"""Called with method, path and body of each request; returns the response, or None to pass the request on."""


@contextmanager
def relay(target: str, intercept: Intercept, *, others: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Pass requests on to the server at `target` during the block; yield the proxy's address. Both are host:port.

    `others` are the servers of single paths.
    """
    attributes = {"target": target, "intercept": staticmethod(intercept), "others": others}
    handler = type("Handler", (_Handler,), attributes)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    with serve_in_thread(server):
        yield f"127.0.0.1:{server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    target: str
    intercept: Intercept
    others: Mapping[str, str]
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self._body()
        self._send(self.intercept(self.command, self.path, body) or self._forward(body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the library names them

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _forward(self, body: bytes) -> Reply:
        target = self.others.get(urlsplit(self.path).path, self.target)
        connection = http.client.HTTPConnection(target, timeout=_TIMEOUT_SECONDS)
        # One that was sent several times, as Docker's engine sends Accept, is the list of its values (RFC 9110, 5.3).
        headers = {
            name: ", ".join(self.headers.get_all(name, [])) for name in self.headers if name.lower() not in _HOP_BY_HOP
        }
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        reply = Reply(response.status, response.getheaders(), response.read())
        connection.close()
        return reply

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {
            name: value for name, value in reply.headers if name.lower() not in ("transfer-encoding", "connection")
        }
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(reply.body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    @override
    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
