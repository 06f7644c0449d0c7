"""A server on a loopback port that misbehaves on purpose, in ways in which a real registry cannot."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

from dev.services.server_thread import serve_in_thread

VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Request], Reply] | Reply
"""One reply to everything, or a function of the request."""


class FakeRegistry(ThreadingHTTPServer):
    """Sends the replies of `respond` and keeps the requests."""

    daemon_threads = True
    # A handler that a test holds back ends with the test, not before the server may close.
    block_on_close = False

    def __init__(self, respond: Callable[[Request], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.requests: list[Request] = []
        self.was_requested = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close the connection: some tests do that on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.requests.append(request)
        self.server.was_requested.set()
        reply = self.server.respond(request)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep request lines out of the test output."""


@contextmanager
def fake_registry(respond: Respond) -> Iterator[FakeRegistry]:
    """Run a fake registry that sends one reply to everything, or the reply of a function of the request."""
    server = FakeRegistry(respond if callable(respond) else lambda _request: respond)
    with serve_in_thread(server):
        yield server
