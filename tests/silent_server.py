"""A server that accepts connections and never responds."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Yield its address (host:port) and an event that is set when a client connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = threading.Event()
        connections = list[socket.socket]()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    connected.set()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", connected
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for connection in connections:
            connection.close()
