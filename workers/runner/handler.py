"""One caller's connection: requests read within limits, answers written as JSON, never as a page."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast

from .algorithm import StoppingError
from .payload import InvalidCallError, parameters_from, request_line

if TYPE_CHECKING:
    from .server import Server

IDLE_TIMEOUT = 60
"""Seconds without a byte from a caller after which the connection is closed."""

MAX_CHUNK_LINE = 1024
LINGER = 5.0
"""Seconds that a refused body is read and thrown away, so that the caller gets to read why."""


class Calls:
    """Counts the calls whose answers are still to be written, and how long there have been none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._arriving = 0
        self._idle_since = time.monotonic()

    def __enter__(self) -> None:
        with self._changed:
            self._running += 1

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._running -= 1
            self._idle_since = time.monotonic()
            self._changed.notify_all()

    def expect(self) -> None:
        """A connection was accepted, whose first request is still to be read."""
        with self._changed:
            self._arriving += 1

    def arrived(self) -> None:
        """That request was read, or none came."""
        with self._changed:
            self._arriving -= 1
            self._changed.notify_all()

    def seen(self) -> dict[str, int | float]:
        """How many are under way, those that wait for their turn included, and for how many seconds there are none."""
        with self._changed:
            idle = 0.0 if self._running else time.monotonic() - self._idle_since
            return {"calls": self._running, "idle_seconds": round(idle, 3)}

    def wait_for_arrivals(self, seconds: float) -> bool:
        """Wait until no accepted connection's first request is still to be read; False where that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._arriving == 0, seconds)

    def wait_for_none(self, seconds: float) -> bool:
        """Wait until every answer is written; False where that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, seconds)


class Handler(BaseHTTPRequestHandler):
    """Answers `POST /` and `GET /healthz`; everything else gets an error in the same JSON form."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT
    wbufsize = -1  # buffered: head and body leave together
    _unread = False
    """Whether the caller may still be sending a body that nobody reads."""
    _expected = True
    """Whether the end still waits for this connection's first request."""

    def do_POST(self) -> None:
        """Call the algorithm."""
        with self._server.calls:
            self._arrived()
            try:
                body = self._read_body()
                path, _, query = self.path.partition("?")
                if path != "/":
                    raise InvalidCallError(404, f"There is nothing at {path}; POST to / calls the algorithm.")
                parameters = parameters_from(query)
                line = request_line(self.headers.get("Content-Type"), body)
                answer = self._server.algorithm.call(line, parameters.timeout)
                self._send(200, answer.encoded(with_printed=parameters.stdout))
            except InvalidCallError as refused:
                self._send_message(refused.status, refused.message)
            except StoppingError:
                self.close_connection = True
                self._send_message(503, "The algorithm is being stopped here; send the call again.")
            except OSError:
                raise  # the caller went away
            except Exception:  # noqa: BLE001 - whatever it was, the caller gets an answer
                traceback.print_exc()
                self._send_message(500, "The runner failed; its container's log says how.")
            self.wfile.flush()

    def do_GET(self) -> None:
        """Say how the algorithm is."""
        self._arrived()
        self._refuse_body()
        if self.path.partition("?")[0] != "/healthz":
            self._send_message(404, "There is nothing here; GET /healthz says whether the algorithm has loaded.")
            return
        algorithm, seen = self._server.algorithm, self._server.calls.seen()
        if not algorithm.ready:
            self._send(503, _json({"status": "loading", **seen}))
            return
        failure = algorithm.load_failure()
        error = {} if failure is None else {"load_error": failure.message}
        self._send(200, _json({"status": "ready", **seen, **error}))

    def handle_expect_100(self) -> bool:
        """Ask for the body only where it is not too large already by what the caller says of it."""
        try:
            self._declared_length()
        except InvalidCallError as refused:
            self._refuse_body()
            self._send_message(refused.status, refused.message)
            return False
        self.send_response_only(http.client.CONTINUE)
        self.end_headers()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what `http.server` itself refuses, in our form; for it, a method that we do not have is 501."""
        self.close_connection = True
        self.request_version = self.protocol_version  # an unreadable request would count as HTTP/0.9: no head at all
        if code == http.client.NOT_IMPLEMENTED:
            self._send_message(405, "POST to / calls the algorithm; GET /healthz says whether it has loaded.")
        else:
            self._send_message(int(code), message or explain or "The request cannot be understood.")

    def version_string(self) -> str:
        """What the `Server` header says."""
        return "longshore-runner"

    def log_message(self, *_arguments: object) -> None:
        """Log no requests: the container's output belongs to the algorithm."""

    def finish(self) -> None:
        """Close the connection; a body that was refused is read for a while, or the caller would see a reset."""
        self._arrived()
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if self._unread:
                self.connection.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + LINGER
                self.connection.settimeout(LINGER)
                while time.monotonic() < deadline and self.connection.recv(64 * 1024):
                    pass
        super().finish()

    @property
    def _server(self) -> Server:
        return cast("Server", self.server)

    def _arrived(self) -> None:
        if self._expected:
            self._expected = False
            self._server.calls.arrived()

    def _read_body(self) -> bytes:
        """Read the whole body.

        Raises:
            Refused: 400, its length is not told in a way that can be read; 413, it is too large.
        """
        self._unread = True
        self.close_connection, keep_alive = True, not self.close_connection
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read_chunks()
        else:
            length = self._declared_length()
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionAbortedError("The caller sent less than it said.")
        self._unread = False
        self.close_connection = not keep_alive
        return body

    def _refuse_body(self) -> None:
        """Read no body; a connection on which one is to come cannot be used again."""
        self._unread = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        self.close_connection = self.close_connection or self._unread

    def _declared_length(self) -> int:
        text = self.headers.get("Content-Length", "0").strip()
        if not (text.isascii() and text.isdigit()):
            raise InvalidCallError(400, "Content-Length is not a number.")
        if len(text) > 18 or int(text) > self._server.max_request_bytes:
            raise self._too_large()
        return int(text)

    def _read_chunks(self) -> bytes:
        """Read a chunked body (RFC 9112, section 7.1); trailers are thrown away."""
        body = bytearray()
        while True:
            size = self._chunk_size()
            if size == 0:
                break
            if len(body) + size > self._server.max_request_bytes:
                raise self._too_large()
            body += self.rfile.read(size)
            if self.rfile.readline(3).rstrip(b"\r\n"):
                raise InvalidCallError(400, "A chunk of the body does not end where it should.")
        while self.rfile.readline(MAX_CHUNK_LINE).rstrip(b"\r\n"):
            pass
        return bytes(body)

    def _chunk_size(self) -> int:
        text = self.rfile.readline(MAX_CHUNK_LINE).partition(b";")[0].strip()
        if not text:
            raise InvalidCallError(400, "The body ends before its last chunk.")
        try:
            size = int(text, 16)
        except ValueError:
            size = -1
        if size < 0:
            raise InvalidCallError(400, "The size of a chunk of the body is not a hexadecimal number.")
        return size

    def _too_large(self) -> InvalidCallError:
        return InvalidCallError(
            413, f"The body is larger than {self._server.max_request_bytes} bytes, the most that is taken."
        )

    def _send_message(self, status: int, message: str) -> None:
        self._send(status, _json({"error": {"message": message}}))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _json(value: object) -> bytes:
    return json.dumps(value).encode("ascii")
