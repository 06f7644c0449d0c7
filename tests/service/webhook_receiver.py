"""A receiver of webhooks on a loopback port, with responses that a test chooses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standardwebhooks
from typing_extensions import override

from dev.services.server_thread import serve_in_thread


@dataclass(frozen=True)
class Received:
    """A received request."""

    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        """Return the event after verifying its signature with the library of Standard Webhooks."""
        return standardwebhooks.Webhook(secret).verify(self.body, self.headers)


class Receiver(ThreadingHTTPServer):
    """Keep requests in `received`; respond with `status` and `response_headers` once `release` is set."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.response_headers: dict[str, str] = {}
        self.release = threading.Event()
        self.release.set()
        self.request_received = threading.Event()
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(Received({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.request_received.set()
        self.server.release.wait(30)
        self.send_response(self.server.status)
        for name, value in {"Content-Length": "0", **self.server.response_headers}.items():
            self.send_header(name, value)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep request lines out of the test output."""


@contextmanager
def webhook_receiver() -> Iterator[Receiver]:
    """Run a receiver during the block."""
    server = Receiver()
    with serve_in_thread(server):
        try:
            yield server
        finally:
            server.release.set()
