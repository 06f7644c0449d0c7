"""One process that runs the services of a test run: each is started on first request, all end with the run.

A run has many processes, which come and go, and no service belongs to one of them. The manager watches the process that
started the run, and stops all services when that ends, however it ends.

Protocol, over a unix socket: a line with the name of a service; the response is a line of JSON, `{"ok": {…}}` or
`{"error": "cause"}`. The response to the line `stop` is the end of the connection, after all services have stopped.
"""

import json
import os
import selectors
import socket
import sys
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.services.base_image import ensure_python_base
from dev.services.engine import private_engine, running_engine
from dev.services.postgres import private_postgres
from dev.services.processes import ending_on_sigterm
from dev.services.python_bases import ensure_python_version
from dev.services.redis import private_redis
from dev.services.registry import private_registry, token_registry
from dev.services.workdir import services_directory

if TYPE_CHECKING:
    from collections.abc import Callable

STOP = "stop"
ADDRESS, LOG, LOCK = "manager", "manager.log", "lock"
"""Names in the manager's directory: its socket, its output, and the lock of the process that starts it."""
PYTHON_VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
"""Versions of Python of which there are base images, as the services `python3.8` and so on."""
_LINE_TIMEOUT_SECONDS = 10


class ServiceManager:
    """The services that were requested so far, with a directory of their own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, dict[str, Any]] = {}
        self._base_image_lock = threading.Lock()
        self._starts: dict[str, Callable[[], dict[str, Any]]] = {
            "engine": lambda: {"docker_host": self._engine},
            "base_image": self._base_image,
            "registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "registry"))),
            "second_registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "second"))),
            "token_registry": lambda: asdict(stack.enter_context(token_registry(self._directory / "token"))),
            "tls_registry": lambda: asdict(stack.enter_context(private_registry(self._directory / "tls", tls=True))),
            "redis": lambda: {"port": stack.enter_context(private_redis(self._directory / "redis")).port},
            "postgres": lambda: {"port": stack.enter_context(private_postgres(self._directory / "postgres")).port},
            **{f"python{version}": partial(self._python_image, version) for version in PYTHON_VERSIONS},
        }

    @cached_property
    def _directory(self) -> Path:
        return self._stack.enter_context(services_directory())

    @cached_property
    def _engine(self) -> str:
        return running_engine() or self._stack.enter_context(private_engine(self._directory / "engine"))

    def _base_image(self) -> dict[str, Any]:
        with self._base_image_lock:
            return {"name": ensure_python_base(self._engine)}

    def _python_image(self, version: str) -> dict[str, Any]:
        with self._base_image_lock:
            return {"name": ensure_python_version(self._engine, version)}

    def respond(self, connection: socket.socket, name: str) -> None:
        """Send the address of a service, started if necessary, or an error; close the connection.

        A base image takes half a minute, so a thread makes it, and other services can be started meanwhile.
        """
        if name.startswith(("base_image", "python")) and "ok" in self._response("engine"):
            threading.Thread(target=self._send_response, args=(connection, name), daemon=True).start()
        else:
            self._send_response(connection, name)

    def _send_response(self, connection: socket.socket, name: str) -> None:
        with connection, suppress(OSError):
            connection.sendall(json.dumps(self._response(name)).encode() + b"\n")

    def _response(self, name: str) -> dict[str, Any]:
        if name not in self._starts:
            return {"error": f"there is no service {name!r}, only {', '.join(sorted(self._starts))}"}
        if name not in self._started:
            try:
                self._started[name] = {"ok": self._starts[name]()}
            except Exception as error:  # noqa: BLE001 - the client gets the error, and the other services stay
                return {"error": f"{type(error).__name__}: {error}"}
        return self._started[name]


def serve(listener: socket.socket, watched_pid: int) -> None:
    """Serve until `stop`, or until the watched process has ended; then stop all services.

    Services are started one after another in this thread: they get their stop signal when the thread that started them
    ends (see `dev.services.processes.running`).
    """
    with ending_on_sigterm(), selectors.DefaultSelector() as selector, ExitStack() as last:
        try:
            watched = os.pidfd_open(watched_pid)
        except ProcessLookupError:
            return  # it has ended already
        last.callback(os.close, watched)
        with ExitStack() as stack:
            manager = ServiceManager(stack)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(watched, selectors.EVENT_READ)
            while not any(key.fd == watched for key, _ in selector.select()):
                connection, _ = listener.accept()
                connection.settimeout(_LINE_TIMEOUT_SECONDS)
                try:
                    line = _read_line(connection)
                except OSError:
                    connection.close()
                    continue
                if line == STOP:
                    last.enter_context(closing(connection))
                    break
                manager.respond(connection, line)


def request_service(address: Path, name: str, *, seconds: float) -> dict[str, Any]:
    """Request a service from a manager.

    Raises:
        RuntimeError: it cannot be started; the message has the cause.
        OSError: the manager does not respond within so many seconds.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(address))
        connection.sendall(f"{name}\n".encode())
        response = json.loads(_read_line(connection))
    if "error" in response:
        raise RuntimeError(f"no {name}: {response['error']}")
    return dict(response["ok"])


def stop(address: Path, *, seconds: float) -> None:
    """Have a manager stop all services, and wait for that; a no-op if there is none."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(FileNotFoundError, ConnectionError):
        connection.settimeout(seconds)
        connection.connect(str(address))
        connection.sendall(f"{STOP}\n".encode())
        connection.recv(1)  # the end of the connection, which the manager closes last


def _read_line(connection: socket.socket) -> str:
    with connection.makefile("r", encoding="utf-8") as reader:
        return reader.readline().strip()


def main() -> None:
    """`python -m dev.services.manager DIRECTORY PID`: run services for the process PID, with a socket in DIRECTORY."""
    directory, watched_pid = Path(sys.argv[1]), int(sys.argv[2])
    address = directory / ADDRESS
    with socket.socket(socket.AF_UNIX) as listener:
        # Renamed when it listens: a client that sees the socket can connect to it.
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        try:
            serve(listener, watched_pid)
        finally:
            # A run that was killed cannot remove its files.
            for name in (ADDRESS, LOG, LOCK):
                (directory / name).unlink(missing_ok=True)
            with suppress(OSError):
                directory.rmdir()


if __name__ == "__main__":
    main()
