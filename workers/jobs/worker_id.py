"""The name of this worker: made once in the parent process, inherited by its pool's children through fork."""

import os
import secrets
import socket

WORKER_ID = f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"


def lease_owner() -> str:
    """The name under which this very process claims jobs: the worker's, and the process in it."""
    return f"{WORKER_ID}/{os.getpid()}"
