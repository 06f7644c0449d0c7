"""What stands in a runner's place and behaves badly: a listener of which each connection is treated as a test says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from shared.db.models import Instance
from tests.service.api.serving import directory_of, ready

Treat = Callable[[socket.socket], None]


@contextmanager
def treated(listener: socket.socket, treat: Treat) -> Iterator[list[bytes]]:
    """Have each connection read to the end of one request, treated and closed; yields the requests that came."""
    requests = list[bytes]()
    ended = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    if ended.is_set():
                        return
                    requests.append(_request(connection))
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
    """Say these, and no more."""

    def say(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return say


@contextmanager
def unix_listener(instance: Instance, *, backlog: int = 128) -> Iterator[socket.socket]:
    """A listener on the socket of a serving, which is ready then."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory_of(instance) / "socket"))
        listener.listen(backlog)
        ready(instance)
        yield listener


@contextmanager
def port_listener(instance: Instance) -> Iterator[socket.socket]:
    """A listener on a port, as pods have it, at which a serving is ready then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready(instance, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield listener


def _request(connection: socket.socket) -> bytes:
    """A whole request: its head, and the body of the length that it tells.

    Raises:
        OSError: the caller went away.
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
        raise ConnectionAbortedError("the caller went away")
    return data
