"""The HTTP server of the runner: reads requests within limits, and writes every response and error as JSON."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler
from typing import cast

from .algorithm import AlgorithmRunner, StoppingError
from .messages import InvalidCallError, parse_query, request_line

IDLE_TIMEOUT_SECONDS = 60
"""Seconds without a byte from the client after which a connection is closed."""

BACKLOG = 128
MAX_CHUNK_LINE_BYTES = 1024
DISCARD_TIMEOUT_SECONDS = 5.0
"""Seconds that a rejected body is read and discarded, so that the client can read the response."""


class CallCounter:
    """Counts the calls whose responses are still to be written, and the seconds since the last one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._connecting = 0
        self._idle_since = time.monotonic()

    def __enter__(self) -> None:
        with self._changed:
            self._running += 1

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._running -= 1
            self._idle_since = time.monotonic()
            self._changed.notify_all()

    def connection_accepted(self) -> None:
        with self._changed:
            self._connecting += 1

    def first_request_read(self) -> None:
        """Count it no longer: its first request was read, or the connection was closed without one."""
        with self._changed:
            self._connecting -= 1
            self._changed.notify_all()

    def status(self) -> dict[str, int | float]:
        """Return the number of calls in progress, waiting ones included, and the seconds since there was one."""
        with self._changed:
            idle = 0.0 if self._running else time.monotonic() - self._idle_since
            return {"calls": self._running, "idle_seconds": round(idle, 3)}

    def wait_for_first_requests(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._connecting == 0, seconds)

    def wait_for_calls(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, seconds)


class RequestHandler(BaseHTTPRequestHandler):
    """Handles `POST /` and `GET /healthz`; every other request gets an error as JSON.

    `_body_unread`: the client may still be sending a body that is not read. `_first_request_pending`: the server, to
    stop, still waits for this connection's first request.
    """

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_SECONDS
    wbufsize = -1  # buffered: header and body are sent together
    _body_unread = False
    _first_request_pending = True

    def do_POST(self) -> None:
        with self._server.calls:
            self._first_request_read()
            try:
                body = self._read_body()
                path, _, query = self.path.partition("?")
                if path != "/":
                    raise InvalidCallError(404, f"There is nothing at {path}; POST to / calls the algorithm.")
                parameters = parse_query(query)
                line = request_line(self.headers.get("Content-Type"), body)
                response = self._server.algorithm.call(line, parameters.timeout)
                self._send(200, response.encode(with_stdout=parameters.stdout))
            except InvalidCallError as error:
                self._send_message(error.status, str(error))
            except StoppingError:
                self.close_connection = True
                self._send_message(503, "This instance of the algorithm is stopping; send the call again.")
            except OSError:
                raise  # the client has closed the connection
            except Exception:  # noqa: BLE001 - the client gets a response after any error
                traceback.print_exc()
                self._send_message(500, "The runner failed; the container's log has the cause.")
            self.wfile.flush()

    def do_GET(self) -> None:
        self._first_request_read()
        self._reject_body()
        if self.path.partition("?")[0] != "/healthz":
            self._send_message(404, "There is nothing here; GET /healthz returns whether the algorithm has loaded.")
            return
        algorithm, calls = self._server.algorithm, self._server.calls.status()
        if not algorithm.ready:
            self._send(503, _json({"status": "loading", **calls}))
            return
        failure = algorithm.load_failure()
        self._send(200, _json({"status": "ready", **calls, **({"load_error": failure.message} if failure else {})}))

    def handle_expect_100(self) -> bool:
        """Ask for the body, unless its declared length is too large already."""
        try:
            self._declared_length()
        except InvalidCallError as error:
            self._reject_body()
            self._send_message(error.status, str(error))
            return False
        self.send_response_only(http.client.CONTINUE)
        self.end_headers()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the errors of `http.server` as JSON; an unknown method, 501 there, becomes 405."""
        self.close_connection = True
        self.request_version = self.protocol_version  # an unreadable request counts as HTTP/0.9, which has no header
        if code == http.client.NOT_IMPLEMENTED:
            self._send_message(405, "POST to / calls the algorithm; GET /healthz returns whether it has loaded.")
        else:
            self._send_message(int(code), message or explain or "The request is not valid HTTP.")

    def version_string(self) -> str:
        return "longshore-runner"

    def log_message(self, *_arguments: object) -> None:
        """Log no requests: the container's output belongs to the algorithm."""

    def finish(self) -> None:
        """Close the connection. A rejected body is read for a while; otherwise the client would get a reset."""
        self._first_request_read()
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if self._body_unread:
                self.connection.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + DISCARD_TIMEOUT_SECONDS
                self.connection.settimeout(DISCARD_TIMEOUT_SECONDS)
                while time.monotonic() < deadline and self.connection.recv(64 * 1024):
                    pass
        super().finish()

    @property
    def _server(self) -> RunnerServer:
        return cast("RunnerServer", self.server)

    def _first_request_read(self) -> None:
        if self._first_request_pending:
            self._first_request_pending = False
            self._server.calls.first_request_read()

    def _read_body(self) -> bytes:
        """Read the whole body.

        Raises:
            InvalidCallError: 400, its declared length is invalid; 413, it is too large.
        """
        self._body_unread = True
        self.close_connection, keep_alive = True, not self.close_connection
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read_chunks()
        else:
            length = self._declared_length()
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionAbortedError("The client sent less than its Content-Length.")
        self._body_unread = False
        self.close_connection = not keep_alive
        return body

    def _reject_body(self) -> None:
        """Read no body; a connection on which one follows cannot be used again."""
        self._body_unread = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        self.close_connection = self.close_connection or self._body_unread

    def _declared_length(self) -> int:
        text = self.headers.get("Content-Length", "0").strip()
        if not (text.isascii() and text.isdigit()):
            raise InvalidCallError(400, "Content-Length is not a number.")
        if len(text) > 18 or int(text) > self._server.max_request_bytes:
            raise self._too_large_error()
        return int(text)

    def _read_chunks(self) -> bytes:
        """Read a chunked body (RFC 9112, section 7.1) and ignore its trailers."""
        body = bytearray()
        while size := self._read_chunk_size():
            if len(body) + size > self._server.max_request_bytes:
                raise self._too_large_error()
            body += self.rfile.read(size)
            if self.rfile.readline(3).rstrip(b"\r\n"):
                raise InvalidCallError(400, "A chunk of the body is longer than its size.")
        while self.rfile.readline(MAX_CHUNK_LINE_BYTES).rstrip(b"\r\n"):
            pass
        return bytes(body)

    def _read_chunk_size(self) -> int:
        text = self.rfile.readline(MAX_CHUNK_LINE_BYTES).partition(b";")[0].strip()
        if not text:
            raise InvalidCallError(400, "The body ends before its last chunk.")
        try:
            size = int(text, 16)
        except ValueError:
            size = -1
        if size < 0:
            raise InvalidCallError(400, "The size of a chunk of the body is not a hexadecimal number.")
        return size

    def _too_large_error(self) -> InvalidCallError:
        return InvalidCallError(413, f"The body is larger than {self._server.max_request_bytes} bytes, the limit.")

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


class RunnerServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves one listening socket, with a daemon thread for each connection."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, listener: socket.socket, algorithm: AlgorithmRunner, calls: CallCounter, max_request_bytes: int
    ) -> None:
        super().__init__(("", 0), RequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.algorithm = algorithm
        self.calls = calls
        self.max_request_bytes = max_request_bytes

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        self.calls.connection_accepted()
        super().process_request(request, client_address)

    def accept_pending(self) -> None:
        """Accept the connections of the backlog: closing the listener would reset them."""
        for _ in range(BACKLOG):
            if not select.select([self.socket], [], [], 0)[0]:
                return
            self.handle_request()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print errors, except that a client has closed its connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _json(value: object) -> bytes:
    return json.dumps(value).encode("ascii")
