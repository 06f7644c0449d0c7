"""A blocking HTTP client: one request at a time over kept connections, bounded in time and size.

Another thread can interrupt a request by `abort` or by the cancel token.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from shared.cancellation import CancelToken, Watchdog, call_after
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks, registry_networks
from shared.net.connections import Proxy, new_connection
from shared.net.errors import error_from_exception
from shared.net.origins import host_of, origin_of, path_of
from shared.net.responses import Response

MAX_BODY_BYTES = 4 * 1024 * 1024
"""The size up to which registries must accept manifests (distribution spec: pushing manifests)."""
PIECE_BYTES = 256 * 1024
"""The part of a large body that is in memory, and that must be sent or received within the read timeout."""

_READ_BYTES = 64 * 1024
_CLOSED_BY_PEER = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
"""Errors of sending to a peer that has closed the connection, over TCP and over TLS."""


@dataclass(frozen=True)
class Timeouts:
    """The timeouts of one request, in seconds."""

    connect: float = 5.0
    """For each address of the host, and for each step of the TLS handshake."""
    read: float = 30.0
    """Between two reads of bytes. Without `total` also for the whole response, or for `PIECE_BYTES` of a stream."""
    total: float | None = 60.0
    """From the request to the last byte of the response; None: as long as the body of the request takes."""

    @property
    def response(self) -> float | None:
        """The limit for the headers of a response, and for a body that is no stream; None if `total` limits them."""
        return self.read if self.total is None else None


@dataclass(frozen=True)
class RequestBody:
    """A body that is sent in pieces, so that it is never completely in memory."""

    length: int
    """Bytes."""
    pieces: Callable[[], Iterator[bytes]]
    """Returns the content from its beginning."""


class HttpTransport:
    """Kept connections to a registry and the hosts it redirects to. For one thread; only `abort` is thread-safe."""

    def __init__(
        self,
        context: ssl.SSLContext,
        timeouts: Timeouts,
        cancel_token: CancelToken | None = None,
        networks: AllowedNetworks | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._context = context
        self._timeouts = timeouts
        self.cancel_token = cancel_token
        """Interrupts requests; a client that is reused for other work gets the token of that work."""
        self._networks = networks or registry_networks()
        self._proxy = proxy
        self._connections: dict[str, HTTPConnection] = {}
        self._interrupt: _Interrupt | None = None
        self._aborted = threading.Event()

    def clone(self) -> "HttpTransport":
        """Return a transport with the same options and no connections, for another thread."""
        return HttpTransport(self._context, self._timeouts, self.cancel_token, self._networks, self._proxy)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | RequestBody | None = None,
        max_bytes: int = MAX_BODY_BYTES,
        timeouts: Timeouts | None = None,
    ) -> Response:
        """Send one request and read at most `max_bytes` of the response body. Redirects are not followed.

        Raises:
            WorkError: there was no response; its cause is the error of the connection.
            WorkCancelledError: cancelled before or during the request.
        """
        timeouts = timeouts or self._timeouts
        with self._sent(method, url, headers, body, timeouts) as (connection, response, interrupt):
            content = bytearray()
            with call_after(timeouts.response, interrupt.set):
                while len(content) <= max_bytes and (piece := response.read(_READ_BYTES, decode_content=False)):
                    content += piece
            if interrupt.is_set:
                raise ConnectionAbortedError
            complete = len(content) <= max_bytes
            if not complete:
                connection.close()
            return Response(method, url, response.status, response.headers, bytes(content[:max_bytes]), complete)

    @contextmanager
    def stream(
        self, url: str, headers: Mapping[str, str], timeouts: Timeouts
    ) -> Iterator[tuple[Response, Callable[[int], bytes]]]:
        """GET a large body: yield a response without a body, and a function that reads at most so many bytes.

        The function returns at most `PIECE_BYTES` at a time. The connection is closed afterwards.

        Raises:
            WorkError, WorkCancelledError: as `request`; also when reading fails in the block.
        """
        with self._sent("GET", url, headers, None, timeouts) as (connection, response, interrupt):
            try:
                with Watchdog(timeouts.read, interrupt.set) as watchdog:

                    def read(max_bytes: int) -> bytes:
                        with watchdog.watching():
                            piece = response.read(min(max_bytes, PIECE_BYTES), decode_content=False)
                        if interrupt.is_set:
                            raise ConnectionAbortedError
                        return piece

                    yield Response("GET", url, response.status, response.headers, b"", complete=False), read
            finally:
                connection.close()

    def abort(self) -> None:
        """Interrupt the present request and refuse any further one."""
        self._aborted.set()
        if (interrupt := self._interrupt) is not None:
            interrupt.set()

    def close(self) -> None:
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    @contextmanager
    def _sent(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | RequestBody | None, timeouts: Timeouts
    ) -> Iterator[tuple[HTTPConnection, BaseHTTPResponse, "_Interrupt"]]:
        """Send a request and yield its unread response. Errors of the connection in the block become `WorkError`."""
        host = host_of(url)
        with self._interruptible(timeouts.total) as interrupt:
            connection = self._connection_to(url)
            try:
                # A response that was not read to its end holds the socket also after the connection is closed.
                with closing(self._send(connection, interrupt, method, url, headers, body, timeouts)) as response:
                    yield connection, response, interrupt
            except (HTTPError, http.client.HTTPException, OSError) as error:
                connection.close()
                if interrupt.is_set:
                    raise WorkError(ErrorClass.TRANSIENT, f"{host} did not complete its response in time.") from error
                raise error_from_exception(host, error) from error
            except BaseException:
                connection.close()
                raise

    @contextmanager
    def _interruptible(self, timeout: float | None) -> Iterator["_Interrupt"]:
        """Interrupt the block after the timeout (seconds), by `abort`, and by the cancel token."""
        interrupt = self._interrupt = _Interrupt()
        if self._aborted.is_set():
            interrupt.set()
        cancellation = self.cancel_token.on_cancel(interrupt.set) if self.cancel_token else nullcontext()
        try:
            with call_after(timeout, interrupt.set), cancellation:
                yield interrupt
        finally:
            self._interrupt = None

    def _connection_to(self, url: str) -> HTTPConnection:
        """Return a kept connection to the URL's origin if it is still open, else a new one that is not open yet."""
        origin = origin_of(url)
        if origin is None:
            raise ValueError("only absolute http and https URLs can be requested")
        kept = self._connections.get(origin)
        if kept is not None:
            if kept.is_connected:
                return kept
            kept.close()
        connection = new_connection(
            origin, self._context, self._networks, proxy=self._proxy, timeout=self._timeouts.connect
        )
        self._connections[origin] = connection
        return connection

    def _send(
        self,
        connection: HTTPConnection,
        interrupt: "_Interrupt",
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | RequestBody | None,
        timeouts: Timeouts,
    ) -> BaseHTTPResponse:
        target = path_of(url)
        if self._proxy is not None and urlsplit(url).scheme == "http":
            target, headers = url, {**headers, **self._proxy.headers}
        was_kept = connection.sock is not None
        try:
            return _exchange(connection, interrupt, method, target, headers, body, timeouts)
        except (http.client.RemoteDisconnected, *_CLOSED_BY_PEER):
            # The peer may have closed a kept connection while it was idle: use a new one.
            if interrupt.is_set or not was_kept or isinstance(body, RequestBody):
                raise
            connection.close()
            return _exchange(connection, interrupt, method, target, headers, body, timeouts)


def _exchange(
    connection: HTTPConnection,
    interrupt: "_Interrupt",
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | RequestBody | None,
    timeouts: Timeouts,
) -> BaseHTTPResponse:
    interrupt.watch(connection.sock)
    if connection.sock is None:
        connection.connect()
        interrupt.watch(connection.sock)
    connection.timeout = timeouts.read
    connection.sock.settimeout(timeouts.read)
    if isinstance(body, RequestBody):
        headers = {**headers, "Content-Length": str(body.length)}
        # A peer that refuses a body without reading it closes the connection, but its response can still be read.
        with suppress(*_CLOSED_BY_PEER):
            connection.request(method, target, body.pieces(), headers, preload_content=False, decode_content=False)
    else:
        connection.request(method, target, body, headers, preload_content=False, decode_content=False)
    if interrupt.is_set:
        raise ConnectionAbortedError
    with call_after(timeouts.response, interrupt.set):
        return connection.getresponse()


class _Interrupt:
    """Ends a request from another thread: shutting the socket down wakes the thread that reads from it."""

    def __init__(self) -> None:
        self.is_set = False
        self._sock: socket.socket | None = None

    def watch(self, sock: socket.socket | None) -> None:
        self._sock = sock
        if self.is_set:
            raise ConnectionAbortedError

    def set(self) -> None:
        self.is_set = True
        if self._sock is not None:
            with suppress(OSError):
                # SSLSocket.shutdown would remove the encryption first, and the other thread could then send plain text.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
