"""One process that keeps the parts of a test run: each started when first asked for, all ended with the run.

A run has many processes, which come and go; the parts belong to none of them. The keeper watches the process that the
run began with and unwinds everything when that ends, however it ends.

Protocol, over a unix socket: a line with the name of a part; the answer is a line of JSON, `{"ok": {...}}` or
`{"error": "why not"}`. The line `stop` is answered when everything is stopped.
"""

import json
import os
import selectors
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from dev.services.base_image import ensure_python_base
from dev.services.engine import private_engine, running_engine
from dev.services.place import parts_directory
from dev.services.postgres import private_postgres
from dev.services.processes import ending_on_sigterm
from dev.services.redis import private_redis
from dev.services.registry import private_registry, token_registry

STOP = "stop"
ADDRESS, LOG, LOCK = "keeper", "keeper.log", "lock"
"""Names in the keeper's directory: its socket, what it prints, and the lock of whoever starts it."""
_LINE_SECONDS = 10


class Keeper:
    """The parts that were asked for so far, in a directory of theirs."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._kept: dict[str, dict[str, Any]] = {}
        self._starts: dict[str, Callable[[], dict[str, Any]]] = {
            "engine": lambda: {"docker_host": self._engine},
            "base_image": lambda: {"name": ensure_python_base(self._engine)},
            "registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "registry"))),
            "second_registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "second"))),
            "token_registry": lambda: asdict(stack.enter_context(token_registry(self._directory / "token"))),
            "tls_registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "tls", tls=True))),
            "redis": lambda: {"port": stack.enter_context(private_redis(self._directory / "redis")).port},
            "postgres": lambda: {"port": stack.enter_context(private_postgres(self._directory / "postgres")).port},
        }

    @cached_property
    def _directory(self) -> Path:
        return self._stack.enter_context(parts_directory())

    @cached_property
    def _engine(self) -> str:
        return running_engine() or self._stack.enter_context(private_engine(self._directory / "engine"))

    def answer(self, part: str) -> dict[str, Any]:
        """Where a part answers, started if need be."""
        if part not in self._starts:
            return {"error": f"there is no part {part!r}, only {', '.join(sorted(self._starts))}"}
        if part not in self._kept:
            try:
                self._kept[part] = {"ok": self._starts[part]()}
            except Exception as error:  # noqa: BLE001 - whoever asked is told, and the other parts stay
                return {"error": f"{type(error).__name__}: {error}"}
        return self._kept[part]


def keep(listener: socket.socket, watched_pid: int) -> None:
    """Answer until asked to stop or until the watched process has ended, then stop all parts.

    Parts are started one after the other in this thread: they get their stop signal when the thread that started them
    ends (see `dev.services.processes.running`).
    """
    with ending_on_sigterm(), selectors.DefaultSelector() as selector, ExitStack() as last_words:
        try:
            watched = os.pidfd_open(watched_pid)
        except ProcessLookupError:
            return  # it was gone before we came
        last_words.callback(os.close, watched)
        with ExitStack() as stack:
            keeper = Keeper(stack)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(watched, selectors.EVENT_READ)
            while not any(key.fd == watched for key, _ in selector.select()):
                connection, _ = listener.accept()
                connection.settimeout(_LINE_SECONDS)
                with suppress(OSError):
                    part = _line(connection)
                    if part == STOP:
                        last_words.enter_context(closing(connection))
                        break
                    connection.sendall(json.dumps(keeper.answer(part)).encode() + b"\n")
                connection.close()


def ask(address: Path, part: str, *, seconds: float) -> dict[str, Any]:
    """Ask a keeper for a part.

    Raises:
        RuntimeError: it cannot be had; the text says why.
        OSError: nobody answers there, or not within so many seconds.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(address))
        connection.sendall(f"{part}\n".encode())
        answer = json.loads(_line(connection))
    if "error" in answer:
        raise RuntimeError(f"no {part}: {answer['error']}")
    return dict(answer["ok"])


def stop(address: Path, *, seconds: float) -> None:
    """Have a keeper stop everything, and wait until it did; nothing happens where none answers."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(FileNotFoundError, ConnectionError):
        connection.settimeout(seconds)
        connection.connect(str(address))
        connection.sendall(f"{STOP}\n".encode())
        connection.recv(1)  # the end of the connection, which is the keeper's last act


def _line(connection: socket.socket) -> str:
    with connection.makefile("r", encoding="utf-8") as reader:
        return reader.readline().strip()


def main() -> None:
    """`python -m dev.services.keeper DIRECTORY PID`: keep parts for the process PID, asked for through a socket there."""
    directory, watched_pid = Path(sys.argv[1]), int(sys.argv[2])
    address = directory / ADDRESS
    with socket.socket(socket.AF_UNIX) as listener:
        # Bound under another name first: whoever sees the socket can connect to it.
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        try:
            keep(listener, watched_pid)
        finally:
            # A run that was killed cannot clear up after itself.
            for name in (ADDRESS, LOG, LOCK):
                (directory / name).unlink(missing_ok=True)
            with suppress(OSError):
                directory.rmdir()


if __name__ == "__main__":
    main()
