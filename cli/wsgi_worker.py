"""Gunicorn's worker, changed so that no client holds a thread, and health is answered when every thread is held.

The main thread reads requests whole and then hands them to a thread. It answers clients that are too slow or send too
much itself, and never waits for one.
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
from cli.arrivals import Arrival, Arrived, ArrivedUnreader, BodyLimits

HEALTH_PATHS = (b"/healthz", b"/readyz")
"""Each has a thread of its own."""
RECEIVE_BYTES = 64 * 1024
MAX_BUFFERED_BYTES = 256 * 1024**2
"""Of all requests of a process that arrive or wait for a thread."""
MAX_DISCARDED_BYTES = 64 * 1024**2
DISCARD_TIMEOUT_SECONDS = 10.0
"""Limits of what is read of a body that nobody wants, so that its sender gets the response."""
LINGER_SECONDS = 2.0
"""How long a connection is kept after its last response, so that the client gets all of it (RFC 9112, section 9.6)."""
CLIENT_TIMEOUT_SECONDS = 60
"""How long a thread waits for a client: to send more of a body that is streamed, or to take a piece of the response."""
BUSY_ACCEPT_INTERVAL_SECONDS = 0.05
"""How often a process without a free thread accepts connections: other processes take them first."""
MAX_ACCEPTED = 64
EXPIRY_INTERVAL_SECONDS = 0.5


class JsonThreadWorker(ThreadWorker):
    """A worker whose own errors, such as invalid HTTP, have the shape of the API's errors."""

    stop_requested_at: float | None = None
    """Seconds of the monotonic clock; the deadline of everything that still runs counts from here."""
    body_limits: BodyLimits | None = None
    """None: a thread streams the body."""

    @override
    def init_process(self) -> None:
        self._arrivals: dict[Arrival, None] = {}
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
        arrival = Arrival(conn, self.body_limits)
        self._arrivals[arrival] = None
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, arrival))
        buffered = conn.parser.unreader.take_buffered() if conn.parser else b""
        if buffered:
            self._feed(arrival, buffered)
        else:
            self._receive(arrival, conn.sock)
        if self.nr_conns >= self.worker_connections:
            self._make_room(arrival)

    def _receive(self, arrival: Arrival, client: socket.socket) -> None:
        try:
            data = client.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(arrival)
        elif not arrival.is_discarded:
            self._feed(arrival, data)
        elif not arrival.has_discarded(data):
            self._close(arrival)

    def _feed(self, arrival: Arrival, data: bytes) -> None:
        arrived = arrival.feed(data)
        self._buffered[arrival.conn] = arrival.size
        self._buffered_bytes += len(data)
        if arrived is Arrived.ALL:
            self._forget(arrival)
            self._submit(arrival)
        elif arrived is Arrived.INVALID:
            self._refuse(arrival, 400, "Bad Request", "This is not a valid HTTP request.")
        elif arrived is Arrived.TOO_LARGE:
            self._refuse(arrival, 413, "Content Too Large", "The body is larger than what is taken here.")
        elif self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._refuse(arrival, 503, "Service Unavailable", "Too many requests are in progress; send this one again.")
        elif arrival.awaits_continue:
            arrival.awaits_continue = False
            with contextlib.suppress(OSError):
                arrival.conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _submit(self, arrival: Arrival) -> None:
        conn = arrival.conn
        method, _, target = arrival.head.partition(b"\r\n")[0].partition(b" ")
        path = target.partition(b" ")[0].partition(b"?")[0]
        lane = self._health.get(path) if method in (b"GET", b"HEAD") else None
        task = (lane or self.tpool).submit(self._handle_arrived, conn, *arrival.take())
        if lane is None:
            self._running.add(task)
        task.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _handle_arrived(self, conn: Any, pieces: list[bytes], rest: bytes) -> Any:
        conn.data_ready = True
        conn.init()
        if not isinstance(conn.parser.unreader, ArrivedUnreader):
            conn.parser.unreader = ArrivedUnreader(conn.sock)
        conn.parser.unreader.arrived.extend(piece for piece in pieces if piece)
        keeps_connection = self.handle(conn)
        if keeps_connection and rest:
            conn.parser.unreader.unread(rest)
        return keeps_connection

    @override
    def handle_request(self, req: Any, conn: Any) -> bool:
        """Respond, and read what the application left of the body before gunicorn looks at the connection again.

        Gunicorn reads 64 KiB of it. A sender in the middle of more would be reset, and fail to write before it has
        read the response (RFC 9112, section 9.6).
        """
        conn.sock.settimeout(CLIENT_TIMEOUT_SECONDS)
        if self.body_limits is not None:
            req._expected_100_continue = False  # noqa: SLF001 - the body has arrived, so nothing is asked for
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
        arrival = Arrival(conn, None)
        with contextlib.suppress(OSError):
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, arrival))
        self._arrivals[arrival] = None
        self._linger(arrival, max_bytes=RECEIVE_BYTES, seconds=LINGER_SECONDS)

    @override
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, ParseException):
            _write_error(client, 400, "Bad Request", Code.INVALID_REQUEST, "This is not a valid HTTP request.")
            return
        self.log.error("request_failed_outside_application", exc_info=exc)
        message = "An internal error; the log of the service has its cause."
        _write_error(client, 500, "Internal Server Error", Code.INTERNAL, message)

    def _refuse(self, arrival: Arrival, status: int, reason: str, message: str) -> None:
        _write_error(arrival.conn.sock, status, reason, Code.INVALID_REQUEST, message)
        arrival.conn.sock.setblocking(False)
        self._release(arrival.conn)
        self._linger(arrival, max_bytes=MAX_DISCARDED_BYTES, seconds=DISCARD_TIMEOUT_SECONDS)

    def _linger(self, arrival: Arrival, *, max_bytes: int, seconds: float) -> None:
        """End the connection for writing, and read on for a while; gunicorn would let the main thread wait for that."""
        arrival.discard(max_bytes=max_bytes, seconds=seconds)
        try:
            arrival.conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(arrival)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        self._next_expiry = now + EXPIRY_INTERVAL_SECONDS
        stopped_at = None if self.alive else self.stop_requested_at
        for arrival in list(self._arrivals):
            is_unwanted = stopped_at is not None and arrival.is_silent and now > stopped_at + LINGER_SECONDS
            if not is_unwanted and not arrival.is_overdue(now):
                continue
            if arrival.is_discarded or arrival.is_silent:
                self._close(arrival)
            else:
                self._refuse(arrival, 408, "Request Timeout", "The request arrived too slowly; send it again.")

    def _make_room(self, newest: Arrival) -> None:
        """Close the oldest connection on which nothing has arrived; without one, another that is not served."""
        others = [arrival for arrival in self._arrivals if arrival is not newest]
        silent = next((arrival for arrival in others if arrival.is_silent), None)
        if silent is not None:
            self._close(silent)
        elif self.keepalived_conns:
            self.keepalived_conns[0].timeout = time.monotonic()
            self.murder_keepalived()
        elif others:
            self._close(others[0])

    def _close(self, arrival: Arrival) -> None:
        self._forget(arrival)
        self._release(arrival.conn)
        self.nr_conns -= 1
        arrival.conn.close()

    def _forget(self, arrival: Arrival) -> None:
        del self._arrivals[arrival]
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(arrival.conn.sock)

    def _release(self, conn: Any) -> None:
        self._buffered_bytes -= self._buffered.pop(conn, 0)


def _write_error(client: Any, status: int, reason: str, code: Code, message: str) -> None:
    body = json.dumps({"error": {"id": uuid.uuid4().hex, "code": int(code), "message": message}})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError):
        write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
