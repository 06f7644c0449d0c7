"""The sockets of what runs on this machine's engine: `ID/socket` below the serving directory.

What runs can be hostile, and its socket lies in a directory that it could once write to. So the entry itself is opened,
never what it points to, and what was looked at is what is connected to.
"""

import errno
import os
import socket
import stat
from pathlib import Path

SOCKET = "socket"
SCHEME = "unix:"


def endpoint_of(serving_id: str) -> str:
    """How a serving's row names its socket."""
    return f"{SCHEME}{serving_id}"


def connect(serving_directory: Path, serving_id: str, *, seconds: float) -> socket.socket:
    """A connection to what serves; `seconds` is its timeout for each further step.

    Raises:
        OSError: nobody listens (ENOENT, ECONNREFUSED), its queue is full (EAGAIN), or what is there is no socket
            (ENOTSOCK): a link, say, that leads elsewhere.
    """
    path = serving_directory / serving_id / SOCKET
    entry = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(entry).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            # This very entry (proc(5)), whatever the name stands for by now; and paths can be too long (unix(7)).
            connection.connect(f"/proc/self/fd/{entry}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(entry)
