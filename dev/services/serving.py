"""Small servers in a thread of this process."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.02
"""How soon a server notices that it is to end."""


@contextmanager
def serve_in_thread(server: socketserver.BaseServer) -> Iterator[None]:
    """Have a server that listens already answer for the length of the block; then it is closed."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
