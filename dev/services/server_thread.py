"""Run a small server in a thread of this process."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

POLL_INTERVAL_SECONDS = 0.02
"""Seconds until a server notices its shutdown."""


@contextmanager
def serve_in_thread(server: socketserver.BaseServer) -> Iterator[None]:
    """Run a server that listens already during the block, then close it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_INTERVAL_SECONDS}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
