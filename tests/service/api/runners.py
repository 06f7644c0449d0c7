"""Stand-ins for runners that behave badly: a listener that treats each connection as a test says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from shared.db.models import Instance
from tests.service.api.serving import directory_of, ready

Treat = Callable[[socket.socket], None]


@contextmanager
def treated(listener: socket.socket, treat: Treat) -> Iterator[list[bytes]]:
    """Read one request from each connection, treat it and close it; give the requests received so far."""
    requests = list[bytes]()
    ended = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    if ended.is_set():
                        return
                    requests.append(read_request(connection))
                    treat(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        ended.set()
        with socket.socket(listener.family) as last:
            last.connect(listener.getsockname())
        thread.join()


def says(*pieces: bytes) -> Treat:
    """Return a treatment that sends these bytes."""

    def say(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return say


@contextmanager
def unix_listener(instance: Instance, *, backlog: int = 128) -> Iterator[socket.socket]:
    """Listen on the socket of an instance, and mark it as ready."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory_of(instance) / "socket"))
        listener.listen(backlog)
        ready(instance)
        yield listener


@contextmanager
def port_listener(instance: Instance) -> Iterator[socket.socket]:
    """Listen on a port, as pods do, and mark an instance there as ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready(instance, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield listener


def read_request(connection: socket.socket) -> bytes:
    """Read one request: its head, and a body of the length that the head names.

    Raises:
        OSError: the caller disconnected.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionAbortedError("the caller disconnected")
    return data
