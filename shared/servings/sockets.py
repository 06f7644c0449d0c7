"""The sockets of what runs on this machine's engine: `ID/socket` below the serving directory.

What runs can be hostile, and its socket lies in a directory that it could once write to. So the entry itself is opened,
never what it points to, and what was looked at is what is connected to.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "socket"
SCHEME = "unix:"


def endpoint_of(serving_id: str) -> str:
    """How a serving's row names its socket."""
    return f"{SCHEME}{serving_id}"


@contextmanager
def socket_entry(serving_directory: Path, serving_id: str) -> Iterator[str]:
    """A path that leads to the socket of what serves and to nothing else, for the length of the block (proc(5)).

    Raises:
        OSError: there is none (ENOENT), or what is there is no socket (ENOTSOCK): a link, say, that leads elsewhere.
    """
    path = serving_directory / serving_id / SOCKET
    entry = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(entry).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        yield f"/proc/self/fd/{entry}"
    finally:
        os.close(entry)


def connect(serving_directory: Path, serving_id: str, *, seconds: float) -> socket.socket:
    """A connection to what serves; `seconds` is its timeout for each further step.

    Raises:
        OSError: as `socket_entry`; also where nobody listens (ECONNREFUSED), or the queue is full (EAGAIN).
    """
    with socket_entry(serving_directory, serving_id) as path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection
