"""A TCP proxy to a registry that blocks in the middle of an upload, and notices when the client disconnects."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class HoldingProxy:
    """Forwards everything until one connection has sent more than `hold_after` bytes, and blocks that one.

    `lenient` forwards all connections after the first blocked one. `stuck` is set when one is blocked; `hung_up` when
    its client has closed it.
    """

    def __init__(self, target: str, *, hold_after: int, lenient: bool = False) -> None:
        address, _, port = target.partition(":")
        self._target = (address, int(port))
        self._hold_after = hold_after
        self._lenient = lenient
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._resume = threading.Event()
        self.stuck = threading.Event()
        self.hung_up = threading.Event()

    @property
    def host(self) -> str:
        """Address and port, as in image references."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def resume(self) -> None:
        """Check the blocked connection again."""
        self._resume.set()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._resume.set()
        for opened in list(self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in list(self._threads):
            thread.join()

    def _start(self, target: Callable[..., Any], *arguments: socket.socket | int | None) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                self._sockets += [client, upstream]
                self._start(self._pass_on, upstream, client, None)
                self._start(self._pass_on, client, upstream, self._hold_after)

    def _pass_on(self, source: socket.socket, target: socket.socket, hold_after: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if hold_after is not None and passed > hold_after and not (self._lenient and self.stuck.is_set()):
                    self._hold(source)
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _hold(self, source: socket.socket) -> None:
        self.stuck.set()
        self._resume.wait()
        with contextlib.suppress(ConnectionResetError):
            while source.recv(65536):
                pass
        self.hung_up.set()
