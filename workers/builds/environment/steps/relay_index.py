"""Forward requests for the package index to the worker: an HTTP server on loopback, without host name and password.

The worker that started this process is at the other end of its streams. To stdout go the port in a line, and then a
line `GET PATH` for each request. From stdin come, for each: a line of JSON with `status` and `headers`, and the body in
pieces, each after its length in four bytes; a length of zero ends the body.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_one_at_a_time = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers one request and closes the connection, so that an idle connection delays no other."""

    timeout = 60

    def do_GET(self) -> None:
        with _one_at_a_time:
            sys.stdout.buffer.write(f"GET {self.path}\n".encode("latin-1"))
            sys.stdout.buffer.flush()
            head = json.loads(sys.stdin.buffer.readline())
            self.send_response(head["status"])
            for name, value in head["headers"].items():
                self.send_header(name, value)
            with suppress(OSError):
                self.end_headers()
            while size := int.from_bytes(sys.stdin.buffer.read(4), "big"):
                piece = sys.stdin.buffer.read(size)
                with suppress(OSError):  # the client has left: the rest must be read all the same
                    self.wfile.write(piece)

    def log_message(self, *_: object) -> None:  # type: ignore[explicit-override] # a decorator of newer Pythons
        """Write nothing, because stderr is not read."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
sys.stdout.buffer.write(f"{server.server_port}\n".encode())
sys.stdout.buffer.flush()
server.serve_forever()
