"""One HTTP exchange at a time over kept connections: bounded in time and size, and cut short from another thread.

What a registry, or a server it sent us to, answered.
"""

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks, registry_networks
from shared.net.connections import Proxy, new_connection
from shared.net.errors import error_from_exception
from shared.net.origins import host_of, origin_of

MAX_BODY = 4 * 1024 * 1024
"""Bytes: what the distribution spec lets registries limit manifests to (pushing manifests)."""

_READ_AT_ONCE = 64 * 1024
_HUNG_UP = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
"""How sending fails when the other side has closed the connection; over TLS that is an error of its own."""


@dataclass(frozen=True)
class Timeouts:
    """How long an exchange may take, in seconds."""

    connect: float = 5.0
    """For each address of the host, and for each step of the TLS handshake."""
    read: float = 30.0
    """Between two arrivals of bytes."""
    whole: float | None = 60.0
    """From the request to the answer's last byte, however steadily it drips; None: no limit but that of silence."""


@dataclass(frozen=True)
class Response:
    """One HTTP response, read to its end or to the limit that was set for it."""

    method: str
    url: str
    """What was asked."""
    status: int
    headers: Mapping[str, str]
    """Without regard to case; a repeated header's values are joined by a comma (RFC 9110 section 5.3)."""
    body: bytes
    complete: bool = True
    """Whether `body` is all there was."""

    @property
    def location(self) -> str:
        """Where the answer points, as an absolute URL; empty where it points nowhere or to what is no URL."""
        location = self.headers.get("Location")
        try:
            return urljoin(self.url, location) if location else ""
        except ValueError:
            return ""

    @property
    def is_html(self) -> bool:
        """Whether the body is a page for people: no registry answers so, what stands before one does."""
        return "html" in self.headers.get("Content-Type", "").lower() or self.body.lstrip()[:1] == b"<"

    def json_object(self) -> dict[str, object]:
        """The body as a JSON object; empty where it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class RequestBody:
    """A body that is sent piece by piece, so that it is never in memory whole."""

    length: int
    """Bytes."""
    pieces: Callable[[], Iterator[bytes]]
    """Its content from the beginning; asked for again where it must be sent again."""


class HttpTransport:
    """Connections to a registry and to where it sends us. Used by one thread; `abort` may come from any other."""

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: Timeouts,
        stop: CancelToken | None = None,
        networks: AllowedNetworks | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._context = context
        self._limits = limits
        self._stop = stop
        self._networks = networks or registry_networks()
        self._proxy = proxy
        self._connections: dict[str, HTTPConnection] = {}
        self._cut: _Cut | None = None
        self._aborted = threading.Event()

    def clone(self) -> "HttpTransport":
        """Another wire with the same trust and limits, for another thread."""
        return HttpTransport(self._context, self._limits, self._stop, self._networks, self._proxy)

    def serve(self, stop: CancelToken) -> None:
        """Go on for other work, which another stop ends."""
        self._stop = stop

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | RequestBody | None = None,
        most: int = MAX_BODY,
        limits: Timeouts | None = None,
    ) -> Response:
        """Send one request and read its answer, up to `most` bytes of it. No redirect is followed.

        Raises:
            WorkError: there was no answer; its cause is the error of the connection.
            Stopped: the stop was asked for, before or during the exchange.
        """
        with self._spoken(method, url, headers, body, limits or self._limits) as (connection, response, cut):
            read = bytearray()
            while len(read) <= most and (piece := response.read(_READ_AT_ONCE, decode_content=False)):
                read += piece
            if cut.made:
                raise ConnectionAbortedError
            complete = len(read) <= most
            if not complete:
                connection.close()
            return Response(method, url, response.status, response.headers, bytes(read[:most]), complete)

    @contextmanager
    def reading(
        self, url: str, headers: Mapping[str, str], limits: Timeouts
    ) -> Iterator[tuple[Response, Callable[[int], bytes]]]:
        """GET something large: its head, without a body, and a reader of at most so many bytes at a time.

        What is not read to its end costs the connection.

        Raises:
            WorkError, Stopped: as `exchange`; also when the reading breaks off in the block.
        """
        with self._spoken("GET", url, headers, None, limits) as (connection, response, _cut):

            def read(most: int) -> bytes:
                return response.read(most, decode_content=False)

            try:
                yield Response("GET", url, response.status, response.headers, b"", complete=False), read
            finally:
                connection.close()

    @contextmanager
    def _spoken(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | RequestBody | None, limits: Timeouts
    ) -> Iterator[tuple[HTTPConnection, BaseHTTPResponse, "_Cut"]]:
        """A request that was sent and the beginning of its answer; what breaks in the block is told as an error."""
        host = host_of(url)
        with self._cuttable(limits.whole) as cut:
            connection = self._connection(url)
            try:
                yield connection, self._asked(connection, cut, method, url, headers, body, limits), cut
            except (HTTPError, http.client.HTTPException, OSError) as error:
                connection.close()
                if cut.made:
                    raise WorkError(ErrorClass.TRANSIENT, f"{host} did not answer to the end in time.") from error
                raise error_from_exception(host, error) from error
            except BaseException:
                connection.close()
                raise

    def abort(self) -> None:
        """End the exchange that runs now and refuse any further one."""
        self._aborted.set()
        cut = self._cut
        if cut is not None:
            cut.make()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    @contextmanager
    def _cuttable(self, seconds: float | None) -> Iterator["_Cut"]:
        """While the block runs, the time limit, `abort` and the stop signal cut its connection."""
        cut = self._cut = _Cut()
        if self._aborted.is_set():
            cut.make()
        clock = threading.Timer(seconds or 0, cut.make)
        clock.daemon = True
        if seconds is not None:
            clock.start()
        try:
            with self._stop.interrupting(cut.make) if self._stop else nullcontext():
                yield cut
        finally:
            clock.cancel()
            self._cut = None

    def _connection(self, url: str) -> HTTPConnection:
        """A kept connection to the URL's origin that is still open, else a new one that is not open yet."""
        origin = origin_of(url)
        if origin is None:
            raise ValueError("a wire speaks to absolute http and https addresses only")
        kept = self._connections.get(origin)
        if kept is not None:
            if kept.is_connected:
                return kept
            kept.close()
        connection = new_connection(
            origin, self._context, self._networks, proxy=self._proxy, seconds=self._limits.connect
        )
        self._connections[origin] = connection
        return connection

    def _asked(
        self,
        connection: HTTPConnection,
        cut: "_Cut",
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | RequestBody | None,
        limits: Timeouts,
    ) -> BaseHTTPResponse:
        """Ask; once more over a new connection, where a kept one was closed while it rested."""
        rested = connection.sock is not None
        try:
            return self._asked_over(connection, cut, method, url, headers, body, limits)
        except (http.client.RemoteDisconnected, *_HUNG_UP):
            if cut.made or not rested or isinstance(body, RequestBody):
                raise
            connection.close()
            return self._asked_over(connection, cut, method, url, headers, body, limits)

    def _asked_over(
        self,
        connection: HTTPConnection,
        cut: "_Cut",
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | RequestBody | None,
        limits: Timeouts,
    ) -> BaseHTTPResponse:
        cut.watch(connection.sock)
        if connection.sock is None:
            connection.connect()
            cut.watch(connection.sock)
        connection.timeout = limits.read
        connection.sock.settimeout(limits.read)
        target = url
        if self._proxy is None or urlsplit(url).scheme == "https":
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        else:
            headers = {**headers, **self._proxy.headers}
        content: bytes | Iterator[bytes] | None = body if not isinstance(body, RequestBody) else body.pieces()
        if isinstance(body, RequestBody):
            headers = {**headers, "Content-Length": str(body.length)}
        # Who refuses a body without reading it closes the connection: the refusal is there to be read all the same.
        with suppress(*_HUNG_UP) if isinstance(body, RequestBody) else nullcontext():
            connection.request(method, target, content, headers, preload_content=False, decode_content=False)
        if cut.made:
            raise ConnectionAbortedError
        return connection.getresponse()


class _Cut:
    """What another thread uses to end an exchange: shutting the socket wakes whoever reads from it."""

    def __init__(self) -> None:
        self.made = False
        self._sock: socket.socket | None = None

    def watch(self, sock: socket.socket | None) -> None:
        self._sock = sock
        if self.made:
            raise ConnectionAbortedError

    def make(self) -> None:
        self.made = True
        if self._sock is not None:
            with suppress(OSError):
                # Not SSLSocket's own shutdown: it takes the encryption off first, and what the other thread
                # is about to send would leave in clear.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
