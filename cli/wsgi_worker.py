"""Gunicorn's worker, changed so that slow clients hold no thread, and health is answered when every thread is busy.

The main thread reads requests completely before it passes them to a thread. It responds to clients that are too slow or
send too much, and never waits for one.
"""

import contextlib
import json
import selectors
import socket
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker
from typing_extensions import override

from api.errors import Code
from cli.incoming_request import BodyLimits, BufferedUnreader, IncomingRequest, Received, has_body

HEALTH_PATHS = (b"/healthz", b"/readyz")
"""Each has a thread of its own."""
RECEIVE_BYTES = 64 * 1024
MAX_BUFFERED_BYTES = 256 * 1024**2
"""Maximum of all requests of a process that are being received or wait for a thread."""
MAX_DISCARDED_BYTES = 64 * 1024**2
DISCARD_TIMEOUT_SECONDS = 10.0
"""Limits of what is read of an unused body, so that its sender gets the response."""
LINGER_SECONDS = 2.0
"""How long a connection is kept after its last response, so that the client gets all of it (RFC 9112, section 9.6)."""
CLIENT_TIMEOUT_SECONDS = 60
"""How long a thread waits for a client to send a piece of a streamed body, or to read a piece of the response."""
HEALTH_CLIENT_TIMEOUT_SECONDS = 1
"""The same for requests for health, which share one thread. Their responses fit into the socket's buffer."""
BUSY_ACCEPT_INTERVAL_SECONDS = 0.05
"""How often a process without a free thread accepts connections: other processes take them first."""
MAX_ACCEPTED = 64
EXPIRY_INTERVAL_SECONDS = 0.5


class JsonThreadWorker(ThreadWorker):
    """A worker whose own errors, such as invalid HTTP, have the format of the API's errors."""

    stop_requested_at: float | None = None
    """Seconds of the monotonic clock; the time that running requests have left counts from here."""
    body_limits: BodyLimits | None = None
    """None: a thread reads the body."""

    @override
    def init_process(self) -> None:
        self._incoming: dict[IncomingRequest, None] = {}
        self._buffered: dict[Any, int] = {}
        self._buffered_bytes = 0
        self._running: set[Future[Any]] = set()
        self._next_expiry = 0.0
        self._health = {path: ThreadPoolExecutor(1, "health") for path in HEALTH_PATHS}
        super().init_process()

    @override
    def handle_exit(self, sig: Any, frame: Any) -> None:
        self.stop_requested_at = self.stop_requested_at or time.monotonic()
        super().handle_exit(sig, frame)

    @override
    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        if self.alive and len(self._running) >= self.cfg.threads:
            self.set_accept_enabled(False)
            super().wait_for_and_dispatch_events(BUSY_ACCEPT_INTERVAL_SECONDS)
            for listener in self.sockets:
                self._accept_waiting(listener)
        else:
            super().wait_for_and_dispatch_events(timeout)
        if time.monotonic() >= self._next_expiry:
            self._end_overdue()

    def _accept_waiting(self, listener: Any) -> None:
        """Accept the connections that wait: a request for health may be behind many others."""
        for _ in range(MAX_ACCEPTED):
            accepted = self.nr_conns
            if accepted < self.worker_connections:
                self.accept(listener)
            if self.nr_conns == accepted:
                return

    @override
    def enqueue_req(self, conn: Any) -> None:
        """Read a request of a connection, and then let a thread respond to it."""
        incoming = IncomingRequest(conn, self.body_limits)
        self._incoming[incoming] = None
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, incoming))
        buffered = conn.parser.unreader.take_buffered() if conn.parser else b""
        if buffered:
            self._feed(incoming, buffered)
        else:
            self._receive(incoming, conn.sock)
        if self.nr_conns >= self.worker_connections:
            self._make_room(incoming)

    def _receive(self, incoming: IncomingRequest, client: socket.socket) -> None:
        try:
            data = client.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(incoming)
        elif not incoming.is_discarded:
            self._feed(incoming, data)
        elif not incoming.has_discarded(data):
            self._close(incoming)

    def _feed(self, incoming: IncomingRequest, data: bytes) -> None:
        received = incoming.feed(data)
        self._buffered[incoming.conn] = incoming.size
        self._buffered_bytes += len(data)
        if received is Received.ALL:
            self._forget(incoming)
            self._submit(incoming)
        elif received is Received.INVALID:
            self._refuse(incoming, 400, "Bad Request", "This is not a valid HTTP request.")
        elif received is Received.TOO_LARGE:
            self._refuse(incoming, 413, "Content Too Large", "The body is larger than what is taken here.")
        elif self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._refuse(
                incoming, 503, "Service Unavailable", "Too many requests are in progress; send this one again."
            )
        elif incoming.awaits_continue:
            incoming.awaits_continue = False
            with contextlib.suppress(OSError):
                incoming.conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _submit(self, incoming: IncomingRequest) -> None:
        conn = incoming.conn
        method, _, target = incoming.head.partition(b"\r\n")[0].partition(b" ")
        path = target.partition(b" ")[0].partition(b"?")[0]
        is_health = method in (b"GET", b"HEAD") and not has_body(incoming.head)
        executor = self._health.get(path) if is_health else None
        conn.client_timeout = HEALTH_CLIENT_TIMEOUT_SECONDS if executor else CLIENT_TIMEOUT_SECONDS
        task = (executor or self.tpool).submit(self._handle_received, conn, *incoming.take())
        if executor is None:
            self._running.add(task)
        task.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _handle_received(self, conn: Any, pieces: list[bytes], rest: bytes) -> Any:
        conn.data_ready = True
        conn.init()
        if not isinstance(conn.parser.unreader, BufferedUnreader):
            conn.parser.unreader = BufferedUnreader(conn.sock)
        conn.parser.unreader.reads_socket = False
        conn.parser.unreader.received.extend(piece for piece in pieces if piece)
        keeps_connection = self.handle(conn)
        if keeps_connection and rest:
            conn.parser.unreader.unread(rest)
        return keeps_connection

    @override
    def handle_request(self, req: Any, conn: Any) -> bool:
        """Respond, and then read the rest of the body, before gunicorn uses the connection again.

        Gunicorn reads 64 KiB of it. A sender in the middle of more would be reset, and fail to write before it has
        read the response (RFC 9112, section 9.6).
        """
        conn.sock.settimeout(conn.client_timeout)
        conn.parser.unreader.reads_socket = self.body_limits is None
        if self.body_limits is not None:
            req._expected_100_continue = False  # noqa: SLF001 - the body was received, so it need not be asked for
        try:
            keeps_connection = super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("client_too_slow")
            return False
        deadline = time.monotonic() + DISCARD_TIMEOUT_SECONDS
        return conn.parser.finish_body(deadline=deadline, max_bytes=MAX_DISCARDED_BYTES) and keeps_connection

    @override
    def finish_request(self, conn: Any, fs: "Future[Any]") -> None:
        self._running.discard(fs)
        self._release(conn)
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
            return
        incoming = IncomingRequest(conn, None)
        with contextlib.suppress(OSError):
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, incoming))
        self._incoming[incoming] = None
        self._linger(incoming, max_bytes=RECEIVE_BYTES, seconds=LINGER_SECONDS)

    @override
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, ParseException):
            _write_error(client, 400, "Bad Request", Code.INVALID_REQUEST, "This is not a valid HTTP request.")
            return
        self.log.error("request_failed_outside_application", exc_info=exc)
        message = "An internal error; the log of the service has its cause."
        _write_error(client, 500, "Internal Server Error", Code.INTERNAL, message)

    def _refuse(self, incoming: IncomingRequest, status: int, reason: str, message: str) -> None:
        _write_error(incoming.conn.sock, status, reason, Code.INVALID_REQUEST, message)
        incoming.conn.sock.setblocking(False)
        self._release(incoming.conn)
        self._linger(incoming, max_bytes=MAX_DISCARDED_BYTES, seconds=DISCARD_TIMEOUT_SECONDS)

    def _linger(self, incoming: IncomingRequest, *, max_bytes: int, seconds: float) -> None:
        """End the connection for writing, and read on for a while; in gunicorn the main thread would wait for that."""
        incoming.discard(max_bytes=max_bytes, seconds=seconds)
        try:
            incoming.conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(incoming)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        self._next_expiry = now + EXPIRY_INTERVAL_SECONDS
        stopped_at = None if self.alive else self.stop_requested_at
        for incoming in list(self._incoming):
            is_unwanted = stopped_at is not None and incoming.is_silent and now > stopped_at + LINGER_SECONDS
            if not is_unwanted and not incoming.is_overdue(now):
                continue
            if incoming.is_discarded or incoming.is_silent:
                self._close(incoming)
            else:
                self._refuse(incoming, 408, "Request Timeout", "The request arrived too slowly; send it again.")

    def _make_room(self, newest: IncomingRequest) -> None:
        """Close the oldest connection on which nothing was received; without one, another that is not being served."""
        others = [incoming for incoming in self._incoming if incoming is not newest]
        silent = next((incoming for incoming in others if incoming.is_silent), None)
        if silent is not None:
            self._close(silent)
        elif self.keepalived_conns:
            self.keepalived_conns[0].timeout = time.monotonic()
            self.murder_keepalived()
        elif others:
            self._close(others[0])

    def _close(self, incoming: IncomingRequest) -> None:
        self._forget(incoming)
        self._release(incoming.conn)
        self.nr_conns -= 1
        incoming.conn.close()

    def _forget(self, incoming: IncomingRequest) -> None:
        del self._incoming[incoming]
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(incoming.conn.sock)

    def _release(self, conn: Any) -> None:
        self._buffered_bytes -= self._buffered.pop(conn, 0)


def _write_error(client: Any, status: int, reason: str, code: Code, message: str) -> None:
    body = json.dumps({"error": {"id": uuid.uuid4().hex, "code": int(code), "message": message}})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError):
        write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
