"""A package index, or another web server, whose responses are scripted and which records the requests."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

ScriptedResponse = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


class ScriptedServer(ThreadingHTTPServer):
    """Answers by path; `asked` has the path and the Authorization header of each request."""

    def __init__(self, answers: Mapping[str, ScriptedResponse]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = dict(answers)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def scripted_server(answers: Mapping[str, ScriptedResponse]) -> Iterator[ScriptedServer]:
    """Serve during the block."""
    with ScriptedServer(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def page(*links: str) -> ScriptedResponse:
    """Return the page of a project, with these links."""
    return 200, {"Content-Type": "text/html"}, "".join(f'<a href="{link}">file</a>' for link in links).encode()
