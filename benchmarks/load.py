"""Generate load: processes send requests over persistent connections as fast as responses arrive, and count them.

Plain sockets: a client library would cost more than an empty view does, and all of it in the time that is measured.
"""

import multiprocessing
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

CLIENTS = 4
"""Processes with one connection each: twice the server's, so that no server process waits for a client."""
STATUS = slice(9, 12)


def request_bytes(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Simple {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def requests_per_second(port: int, requests: Sequence[bytes], *, seconds: float) -> float:
    """Send these requests repeatedly, and return the number of successful responses per second.

    Raises:
        RuntimeError: one was not.
    """
    context = multiprocessing.get_context("spawn")
    counts: Queue[int | str] = context.Queue()
    share = [list(requests[number::CLIENTS]) or list(requests) for number in range(CLIENTS)]
    clients = [context.Process(target=_send, args=(port, mine, seconds, counts), daemon=True) for mine in share]
    for client in clients:
        client.start()
    found = [counts.get(timeout=seconds + 60) for _ in clients]
    for client in clients:
        client.join()
    for count in found:
        if isinstance(count, str):
            raise RuntimeError(count)
    return sum(count for count in found if isinstance(count, int)) / seconds


def _send(port: int, requests: list[bytes], seconds: float, counts: "Queue[int | str]") -> None:
    try:
        counts.put(_count(port, requests, seconds))
    except (OSError, RuntimeError) as error:
        counts.put(f"{type(error).__name__}: {error}")


def _count(port: int, requests: list[bytes], seconds: float) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange(connection, requests[0])
        answered, ends = 0, time.monotonic() + seconds
        while time.monotonic() < ends:
            exchange(connection, requests[answered % len(requests)])
            answered += 1
        return answered


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, and return the body of the response.

    Raises:
        RuntimeError: the status says that it did not go well, or the server hung up.
    """
    connection.sendall(request)
    answer = connection.recv(65_536)
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not answer[STATUS].startswith(b"2"):
        raise RuntimeError(f"{request[:60]!r} was answered {answer[:200]!r}")
    length = _content_length(head)
    while len(body) < length:
        body += _more(connection)
    return body


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(65_536)
    if not part:
        raise RuntimeError("the server hung up")
    return part


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
