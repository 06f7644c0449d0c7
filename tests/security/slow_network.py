"""Clients that send slowly, read slowly, or leave: many at once, over plain sockets, all ended with the block."""

import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECT_TIMEOUT_SECONDS = 30
RECEIVE_BYTES = 64 * 1024
SMALL_BUFFER_BYTES = 2048
_POLL_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class SlowClient:
    """What one client does: send `first` immediately, then `drip` at every interval, again and again."""

    first: bytes
    drip: bytes = b"x"
    interval: float = 5.0
    reads: bool = True
    """False: it never reads a byte of the response, with a receive buffer as small as the kernel permits."""


@dataclass
class Connection:
    """The state of one client's connection."""

    client: SlowClient
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    """The server has closed it."""
    next_drip: float = 0.0
    """When the next bytes are sent or, after the server has closed it, when the client connects again."""

    @property
    def status(self) -> int | None:
        """The status of the response; None if there is none yet."""
        line = bytes(self.received).partition(b"\r\n")[0].split()
        return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") and line[1].isdigit() else None


class SlowNetwork:
    """Connections that are served by one thread."""

    def __init__(self, url: str, *, persistent: bool) -> None:
        self.connections: list[Connection] = []
        self.ended: Counter[int | None] = Counter()
        """Statuses of the connections that persistent clients have replaced; None: closed without a response."""
        self._url = url
        self._is_persistent = persistent
        self._selector = selectors.DefaultSelector()
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-network", daemon=True)

    @property
    def held(self) -> int:
        """The number of connections that the server still holds without a response."""
        return sum(not connection.is_closed and not connection.received for connection in self.connections)

    @property
    def statuses(self) -> list[int]:
        """The statuses of the responses so far."""
        return [status for connection in self.connections if (status := connection.status) is not None]

    def wait_until_released(self, seconds: float) -> bool:
        """Wait until the server holds none of them any more; return whether it did in so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.held, seconds)

    def start(self, clients: list[SlowClient]) -> None:
        """Connect all clients, and keep them going in a thread."""
        for client in clients:
            self.connections.append(self._connect(client))
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for connection in self.connections:
            connection.socket.close()
        self._selector.close()

    def _connect(self, client: SlowClient) -> Connection:
        connected = connect(self._url, receive_buffer=None if client.reads else SMALL_BUFFER_BYTES)
        try:
            connected.sendall(client.first)
        except OSError:  # the server refuses more of them
            connected.close()
            raise
        connection = Connection(client, connected, next_drip=time.monotonic() + client.interval)
        if client.reads:
            self._selector.register(connected, selectors.EVENT_READ, connection)
        return connection

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            for key, _ in self._selector.select(_POLL_INTERVAL_SECONDS):
                if not self._receive(key.data):
                    self._selector.unregister(key.fileobj)
            if not self._selector.get_map():
                self._is_stopping.wait(_POLL_INTERVAL_SECONDS)
            self._send_drips()
            if self._is_persistent:
                self._connect_again()

    def _receive(self, connection: Connection) -> bool:
        """Keep what has arrived, and return whether more may come."""
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        with self._changed:
            connection.received += data
            connection.is_closed = not data
            self._changed.notify_all()
        return bool(data)

    def _send_drips(self) -> None:
        now = time.monotonic()
        for connection in self.connections:
            if connection.is_closed or not connection.client.drip or now < connection.next_drip:
                continue
            connection.next_drip = now + connection.client.interval
            try:
                connection.socket.sendall(connection.client.drip)
            except OSError:  # the server has closed it; a client that reads may still find a response
                with self._changed:
                    connection.is_closed = True
                    self._changed.notify_all()

    def _connect_again(self) -> None:
        """Replace the connections that the server has closed, each at the time of its next bytes."""
        now = time.monotonic()
        for index, connection in enumerate(self.connections):
            if not connection.is_closed or now < connection.next_drip:
                continue
            self.ended[connection.status] += 1
            connection.socket.close()
            connection.next_drip = now + connection.client.interval
            with suppress(OSError):
                self.connections[index] = self._connect(connection.client)


@contextmanager
def slow_network(url: str, clients: list[SlowClient], *, persistent: bool = False) -> Iterator[SlowNetwork]:
    """Connect all clients to the server of a URL, and keep them going during the block.

    Persistent clients connect again, after their interval, when the server has closed the connection.
    """
    network = SlowNetwork(url, persistent=persistent)
    try:
        network.start(clients)
        yield network
    finally:
        network.stop()


def connect(url: str, *, receive_buffer: int | None = None) -> socket.socket:
    """Return a connection to the server of a URL."""
    connected = socket.socket()
    if receive_buffer is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connected.settimeout(CONNECT_TIMEOUT_SECONDS)
    try:
        connected.connect(address_of(url))
    except OSError:
        connected.close()
        raise
    return connected


def address_of(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def request_head(
    method: str, url: str, path: str, *, key: str | None = None, headers: Mapping[str, object] | None = None
) -> bytes:
    """Return the request line and the headers of an HTTP/1.1 request."""
    fields: dict[str, object] = {"Host": "{}:{}".format(*address_of(url))}
    if key is not None:
        fields["Authorization"] = f"Simple {key}"
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def slow_body(url: str, path: str, *, key: str | None, length: int = 100_000, interval: float = 5.0) -> SlowClient:
    """A POST of JSON that promises `length` bytes and sends one at every interval."""
    headers = {"Content-Type": "application/json", "Content-Length": length}
    return SlowClient(request_head("POST", url, path, key=key, headers=headers) + b"{", b" ", interval)


def slow_chunks(url: str, path: str, *, key: str | None, interval: float = 5.0) -> SlowClient:
    """A chunked POST of JSON without an end, of one byte per chunk."""
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    first = request_head("POST", url, path, key=key, headers=headers) + b"1\r\n{\r\n"
    return SlowClient(first, b"1\r\n \r\n", interval)


def slow_headers(url: str, path: str = "/healthz", *, interval: float = 5.0) -> SlowClient:
    """A request whose headers never end."""
    return SlowClient(request_head("GET", url, path)[:-2], b"X-More: 1\r\n", interval)


def slow_reader(url: str, path: str, *, key: str | None) -> SlowClient:
    """A GET whose response is never read."""
    return SlowClient(request_head("GET", url, path, key=key), b"", reads=False)


def send_and_leave(url: str, data: bytes, *, reset: bool = False) -> None:
    """Send bytes and close the connection at once, without reading; with `reset`, with a TCP reset."""
    with connect(url) as connected:
        connected.sendall(data)
        if reset:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def broken_body(url: str, path: str, *, key: str | None, promised: int = 100_000, sent: bytes = b'{"a"') -> None:
    """Send a POST of JSON whose body ends before the promised length, and leave."""
    headers = {"Content-Type": "application/json", "Content-Length": promised}
    send_and_leave(url, request_head("POST", url, path, key=key, headers=headers) + sent)
