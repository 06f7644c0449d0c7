"""Read HTTP requests within limits, and write every response and error as JSON."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Mapping, cast  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

from .messages import InvalidCallError

IDLE_TIMEOUT_SECONDS = 60
"""Seconds without a byte from the client after which a connection is closed."""

MAX_CHUNK_LINE_BYTES = 1024
DISCARD_TIMEOUT_SECONDS = 5.0
"""Seconds that a rejected body is read and discarded, so that the client can read the response."""


class JsonHandler(BaseHTTPRequestHandler):
    """The part of a handler that does not depend on what is requested.

    `_body_unread`: the client may still be sending a body that is not read.
    """

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_SECONDS
    wbufsize = -1  # buffered: header and body are sent together
    _body_unread = False

    @property
    def max_request_bytes(self) -> int:
        return cast("JsonServer", self.server).max_request_bytes

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
        """Send the errors of `http.server` as JSON; 501 there is an unknown method."""
        self.close_connection = True
        self.request_version = self.protocol_version  # an unreadable request counts as HTTP/0.9, which has no header
        if code == http.client.NOT_IMPLEMENTED:
            self._refuse_method()
        else:
            self._send_message(int(code), message or explain or "The request is not valid HTTP.")

    def _refuse_method(self) -> None:
        raise NotImplementedError

    def version_string(self) -> str:
        return "longshore-runner"

    def log_message(self, *_arguments: object) -> None:
        """Log no requests: the container's output belongs to the algorithm."""

    def finish(self) -> None:
        """Close the connection. A rejected body is read for a while; otherwise the client would get a reset."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if self._body_unread:
                self.connection.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + DISCARD_TIMEOUT_SECONDS
                self.connection.settimeout(DISCARD_TIMEOUT_SECONDS)
                while time.monotonic() < deadline and self.connection.recv(64 * 1024):
                    pass
        super().finish()

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
        if len(text) > 18 or int(text) > self.max_request_bytes:
            raise self._too_large_error()
        return int(text)

    def _read_chunks(self) -> bytes:
        """Read a chunked body (RFC 9112, section 7.1) and ignore its trailers."""
        body = bytearray()
        while size := self._read_chunk_size():
            if len(body) + size > self.max_request_bytes:
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
        return InvalidCallError(413, f"The body is larger than {self.max_request_bytes} bytes, the limit.")

    def _send_message(self, status: int, message: str) -> None:
        self._send(status, json_bytes({"error": {"message": message}}))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class JsonServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves one listening socket, with a daemon thread for each connection."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, handler: type[JsonHandler], max_request_bytes: int) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.max_request_bytes = max_request_bytes

    def handle_error(self, request: object, client_address: object) -> None:
        """Print errors, except that a client has closed its connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode("ascii")
