"""The id of this worker: made once in the parent process, inherited by the processes of its pool through fork."""

import os
import secrets
import socket

WORKER_ID = f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"


def lease_owner() -> str:
    return f"{WORKER_ID}/{os.getpid()}"
