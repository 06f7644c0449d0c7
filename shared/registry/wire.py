"""One HTTP exchange at a time over kept connections: bounded in time and size, and cut short from another thread."""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from shared.errors import ErrorClass, WorkError
from shared.networks import AllowedNetworks, ForbiddenAddress, registry_networks
from shared.registry.answer import Answer
from shared.registry.failures import failure_of_exception
from shared.registry.origins import host_of, origin_of
from shared.stopping import StopSignal

MAX_BODY = 4 * 1024 * 1024
"""Bytes: what the distribution spec lets registries limit manifests to (pushing manifests)."""

_READ_AT_ONCE = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """How long an exchange may take, in seconds."""

    connect: float = 5.0
    """For each address of the host, and for each step of the TLS handshake."""
    read: float = 30.0
    """Between two arrivals of bytes."""
    whole: float = 60.0
    """From the request to the answer's last byte, however steadily it drips."""


class Wire:
    """Connections to a registry and to where it sends us. Used by one thread; `abort` may come from any other."""

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: Limits,
        stop: StopSignal | None = None,
        networks: AllowedNetworks | None = None,
    ) -> None:
        self._context = context
        self._limits = limits
        self._stop = stop
        self._networks = networks or registry_networks()
        self._connections: dict[str, HTTPConnection] = {}
        self._cut: _Cut | None = None
        self._aborted = threading.Event()

    def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, most: int = MAX_BODY
    ) -> Answer:
        """Send one request and read its answer, up to `most` bytes of it. No redirect is followed, no proxy asked.

        Raises:
            WorkError: there was no answer; its cause is the error of the connection.
            Stopped: the stop was asked for, before or during the exchange.
        """
        host = host_of(url)
        with self._cuttable() as cut:
            connection = self._connection(url)
            try:
                return self._spoken(connection, cut, method, url, headers, body, most)
            except (HTTPError, http.client.HTTPException, OSError) as error:
                connection.close()
                if cut.made:
                    raise WorkError(ErrorClass.TRANSIENT, f"{host} did not answer to the end in time.") from error
                raise failure_of_exception(host, error) from error
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
    def _cuttable(self) -> Iterator["_Cut"]:
        """While the block runs, the time limit, `abort` and the stop signal cut its connection."""
        cut = self._cut = _Cut()
        if self._aborted.is_set():
            cut.make()
        clock = threading.Timer(self._limits.whole, cut.make)
        clock.daemon = True
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
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
        connection = (
            _CheckedTlsConnection(host, port, timeout=self._limits.connect, ssl_context=self._context)
            if parts.scheme == "https"
            else _CheckedConnection(host, port, timeout=self._limits.connect)
        )
        connection.networks = self._networks
        self._connections[origin] = connection
        return connection

    def _spoken(
        self,
        connection: HTTPConnection,
        cut: "_Cut",
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        most: int,
    ) -> Answer:
        cut.watch(connection.sock)
        if connection.sock is None:
            connection.connect()
            connection.timeout = self._limits.read
            cut.watch(connection.sock)
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, headers, preload_content=False, decode_content=False)
        response = connection.getresponse()
        read = bytearray()
        while len(read) <= most and (piece := response.read(_READ_AT_ONCE, decode_content=False)):
            read += piece
        if cut.made:
            raise ConnectionAbortedError
        complete = len(read) <= most
        if not complete:
            connection.close()
        return Answer(method, url, response.status, response.headers, bytes(read[:most]), complete)


class _CheckedConnection(HTTPConnection):
    """A connection to one of the addresses that its host stands for, each of them checked; resolved this one time."""

    networks: AllowedNetworks

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            addresses = self.networks.resolve(name, self.port or 0)
        except ForbiddenAddress as refusal:
            raise WorkError(ErrorClass.INVALID, str(refusal)) from None
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: NewConnectionError | ConnectTimeoutError | None = None
        for address in addresses:
            # What urllib3 looks up: an address, so there is nothing to look up. Host and certificate stay the name's.
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            finally:
                self._dns_host = name
        raise failure or NewConnectionError(self, "the name stands for no address")


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """The same over TLS."""


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
