"""A server that takes connections and never answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Where it listens, and an event that says that somebody came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = threading.Event()
        kept = list[socket.socket]()

        def take() -> None:
            with suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    asked.set()

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
        taker.join()
        for connection in kept:
            connection.close()
