"""The minimum rate of a client, and the bytes that are buffered for a slow one."""

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from typing import IO, TypeVar

from shared.errors import LimitReachedError, LongshoreError, UnavailableError

MAX_MEMORY_BYTES = 64 * 1024
"""Maximum of a spool in memory; the rest is in a temporary file."""
READ_BYTES = 64 * 1024
T = TypeVar("T")


class TooSlowError(LongshoreError):
    """Raised when a client sends or reads more slowly than the minimum rate."""


class Pace:
    """Limits the time spent waiting for a client.

    It has a credit of seconds. Waiting for the client spends it, each byte adds to it, and it never exceeds
    `grace_seconds`. So a client may pause for that long, but not repeatedly.
    """

    def __init__(self, *, grace_seconds: float, bytes_per_second: float, total_seconds: float | None = None) -> None:
        self._grace = self._credit = grace_seconds
        self._rate = bytes_per_second
        loop = asyncio.get_running_loop()
        self._deadline = None if total_seconds is None else loop.time() + total_seconds

    async def wait(self, waiting: Awaitable[T], size: Callable[[T], int]) -> T:
        """Wait until the client has sent or read something. `size` returns the number of its bytes from the result.

        Raises:
            TooSlowError: the credit or the time is spent.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        ends_at = began_at + self._credit
        try:
            async with asyncio.timeout_at(ends_at if self._deadline is None else min(ends_at, self._deadline)):
                result = await waiting
        except TimeoutError:
            raise TooSlowError("The client is too slow.") from None
        self._credit -= loop.time() - began_at
        self._credit = min(self._grace, self._credit + size(result) / self._rate)
        return result


class Buffers:
    """Counts the bytes that are held for all clients, and for each of them."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_client_bytes = max_bytes // 4
        self._total = 0
        self._clients: dict[str, int] = {}

    def add(self, client: str, size: int) -> None:
        """Count more bytes of a client.

        Raises:
            LimitReachedError: they are too many of this client.
            UnavailableError: they are too many of all clients.
        """
        held = self._clients.get(client, 0)
        if held + size > self._max_client_bytes:
            raise LimitReachedError(
                "Too many bytes of your requests are in progress; send this one again when others have ended."
            )
        if self._total + size > self._max_bytes:
            raise UnavailableError("Too many requests are in progress; send this one again.")
        self._clients[client] = held + size
        self._total += size

    def remove(self, client: str, size: int) -> None:
        self._total -= size
        rest = self._clients.pop(client, 0) - size
        if rest > 0:
            self._clients[client] = rest


class Spool:
    """Bytes in the order in which they came, a few of them in memory and the rest in a temporary file."""

    def __init__(self, buffers: Buffers, client: str) -> None:
        self._buffers = buffers
        self._client = client
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._read_at = 0
        self._write_at = 0

    def __len__(self) -> int:
        return self._memory_bytes + self._write_at - self._read_at

    def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            LimitReachedError, UnavailableError: no more may be held, or the disk of the temporary file is full.
        """
        self._buffers.add(self._client, len(data))
        if self._read_at == self._write_at and self._memory_bytes + len(data) <= MAX_MEMORY_BYTES:
            # A body of one-byte chunks must not become as many objects.
            if self._memory and len(self._memory[-1]) + len(data) <= READ_BYTES // 16:
                self._memory[-1] += data
            else:
                self._memory.append(data)
            self._memory_bytes += len(data)
            return
        try:
            self._write(data)
        except OSError as error:
            self._buffers.remove(self._client, len(data))
            raise UnavailableError(
                f"The gateway cannot store the request ({error.strerror}); send it again in a moment."
            ) from None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="longshore-gateway-")  # noqa: SIM115 - see close
        self._file.seek(self._write_at)
        self._file.write(data)
        self._file.flush()
        self._write_at += len(data)

    def take(self) -> bytes:
        """Remove bytes from the beginning and return them; none if it is empty."""
        if self._memory:
            data = self._memory.popleft()
            self._memory_bytes -= len(data)
        elif self._file is not None and self._read_at < self._write_at:
            self._file.seek(self._read_at)
            data = self._file.read(min(READ_BYTES, self._write_at - self._read_at))
            self._read_at += len(data)
            if self._read_at == self._write_at:
                self._read_at = self._write_at = 0
                self._file.truncate(0)
        else:
            return b""
        self._buffers.remove(self._client, len(data))
        return data

    def close(self) -> None:
        self._buffers.remove(self._client, len(self))
        self._memory.clear()
        self._memory_bytes = self._read_at = self._write_at = 0
        if self._file is not None:
            self._file.close()
            self._file = None
