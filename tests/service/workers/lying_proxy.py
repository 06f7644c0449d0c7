"""A way to a registry that takes every push and then answers with something else than was pushed."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OTHER = b'{"schemaVersion": 2}'
OTHER_DIGEST = "sha256:" + "0" * 64


class LyingProxy:
    """Where it listens, and what it says of manifests: the truth, that there is none (`gone`), or another (`other`).

    It lies about those whose address ends with `about`. Where it says `slow down`, it answers everything with 429.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.says = "truth"
        self.about = ""
        self.host = ""
        self.asked: list[str] = []
        """`METHOD address` of each request."""


@contextmanager
def lying_proxy(target: str) -> Iterator[LyingProxy]:
    """A proxy to the registry at `target` (host:port)."""
    proxy = LyingProxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self._body()
            proxy.asked.append(f"{self.command} {self.path}")
            if proxy.says == "slow down":
                self._answer(429, [("Retry-After", "1")], b"{}")
                return
            asked = self.command in ("GET", "HEAD") and "/manifests/" in self.path
            if asked and self.path.endswith(proxy.about) and proxy.says != "truth":
                self._lie()
                return
            connection = http.client.HTTPConnection(proxy.target, timeout=30)
            connection.request(self.command, self.path, body=body, headers=self._headers_without_length())
            answer = connection.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
            connection.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - the library names them

        def _lie(self) -> None:
            if proxy.says == "gone":
                self._answer(404, [("Content-Type", "application/json")], b'{"errors": []}')
            else:
                kind = "application/vnd.docker.distribution.manifest.v2+json"
                self._answer(200, [("Content-Type", kind), ("Docker-Content-Digest", OTHER_DIGEST)], OTHER)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def _headers_without_length(self) -> dict[str, str]:
            dropped = ("content-length", "transfer-encoding", "connection")
            return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            kept = {name: value for name, value in headers if name.lower() not in ("transfer-encoding", "connection")}
            if self.command != "HEAD":
                kept["Content-Length"] = str(len(body))
            for name, value in kept.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
