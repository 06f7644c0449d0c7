"""A fake Docker engine on a unix socket, for responses that a real one rarely gives."""

import json
import socketserver
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from typing_extensions import override

IMAGE = "sha256:" + "a" * 64


class FakeEngine:
    """Has one untagged image. A push responds with `events`; then it ends, disconnects or hangs.

    `ending` is "end", "break" or "hang"; with `silent` a push gets no response. `reached` is set by a push.
    """

    def __init__(
        self, directory: Path, events: Sequence[Mapping[str, object]], *, ending: str = "end", silent: bool = False
    ) -> None:
        self.events, self.ending, self.silent = events, ending, silent
        self.reached = threading.Event()
        self.over = threading.Event()
        self.address = f"unix://{directory}/e.sock"
        self._server = _Server(f"{directory}/e.sock", _Handler)
        self._server.engine = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    engine: FakeEngine


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            self._answer(200, {"ApiVersion": "1.41"})
        elif IMAGE in self.path:
            self._answer(200, {"Id": IMAGE, "RepoTags": ["here/a:1"]})
        else:
            self._answer(404, {"message": "no such image"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/push" not in self.path:
            self._answer(201, {})
            return
        engine = self.server.engine
        if engine.silent:
            engine.reached.set()
            engine.over.wait()
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in engine.events:
            line = json.dumps(event).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        engine.reached.set()
        if engine.ending == "hang":
            engine.over.wait()
        self.close_connection = engine.ending != "end"
        if engine.ending == "end":
            self.wfile.write(b"0\r\n\r\n")

    def do_DELETE(self) -> None:
        self._answer(200, [])

    @override
    def address_string(self) -> str:
        return "unix"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
