"""Where the runner listens: a TCP port, on IPv6 and IPv4 where both are there, and a unix socket.

What a container's first process owes: to pass signals on and to reap whatever is orphaned.

The runner: serves the algorithm on a port and a unix socket until it is asked to stop.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import socketserver
import stat
import sys
import threading
import time
from types import FrameType

from .algorithm import Algorithm
from .handler import Calls, Handler
from .settings import Settings, SettingsError, settings_from

BACKLOG = 128
SEALING_SECONDS = 10.0
"""How long a socket's directory may stay writable, where it is to be sealed."""
POLL_INTERVAL_SECONDS = 0.01


def tcp_listener(port: int) -> socket.socket:
    """Listen on every address.

    Raises:
        OSError: the port cannot be had.
    """
    if socket.has_dualstack_ipv6():
        # A machine may know IPv6 and have it switched off; only then is IPv4 alone what was meant.
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - a container's port is meant to be reached


def unix_listener(path: str) -> socket.socket:
    """Listen on a unix socket that every user may connect to, in place of one that a former process left.

    Raises:
        OSError: the path cannot be had, or is something other than a socket.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"LONGSHORE_SOCKET: {path} exists and is no socket")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - whoever may reach the directory may call; before anybody can connect
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def wait_until_sealed(path: str, stop_asked: int) -> bool:
    """Wait until this user cannot write into the socket's directory any more; False where a stop was asked for first.

    From then on nothing that runs as this user can put a link or another socket in this one's place, or fill the
    disk of whoever lent the directory.

    Raises:
        TimeoutError: it can still be written after `SEALING_SECONDS`.
    """
    directory = os.path.dirname(path)
    deadline = time.monotonic() + SEALING_SECONDS
    while os.access(directory, os.W_OK):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"LONGSHORE_SOCKET_SEALED is 1, and {directory} can still be written after {SEALING_SECONDS:g} seconds"
            )
        if select.select([stop_asked], [], [], POLL_INTERVAL_SECONDS)[0]:
            return False
    return True


FORWARDED = (signal.SIGTERM, signal.SIGINT)


def leave_pid_one() -> None:
    """Go on as a child process if this is process 1; process 1 itself stays behind, reaps, and ends as the child does.

    So the runner waits for its own children alone, and never takes an exit status that somebody else waits for.
    The caller blocks `FORWARDED` before and unblocks them once its own handlers stand, so that none is lost between.
    """
    if os.getpid() != 1:
        return
    child = os.fork()
    if child == 0:
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


CALL_GRACE = 10.0
"""Seconds that a running call has to end once the runner was asked to stop."""

ARRIVAL_GRACE = 2.0
"""Seconds that a caller who is connected by then has to send its request, and be told that it is too late."""

LAST_WORDS = 1.0
"""Seconds to write the answers of calls that were cut short."""

POLL_INTERVAL = 0.2
"""Seconds until a listening thread sees that it is to end."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves one listening socket, with a thread for each connection that does not hold up the end."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, algorithm: Algorithm, calls: Calls, max_request_bytes: int) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.algorithm = algorithm
        self.calls = calls
        self.max_request_bytes = max_request_bytes

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve a connection that was just accepted, in a thread of its own."""
        self.calls.expect()
        super().process_request(request, client_address)

    def accept_waiting(self) -> None:
        """Accept who has connected by now: closing the listener would reset them, without a word."""
        for _ in range(BACKLOG):
            if not select.select([self.socket], [], [], 0)[0]:
                return
            self.handle_request()

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that went away is no error of ours; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(algorithm: Algorithm, listeners: list[socket.socket], max_request_bytes: int, stop_asked: int) -> None:
    """Serve until a byte can be read from `stop_asked`; then let the running call finish, and end the algorithm."""
    calls = Calls()
    servers = [Server(listener, algorithm, calls, max_request_bytes) for listener in listeners]
    threads = [threading.Thread(target=server.serve_forever, args=(POLL_INTERVAL,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    os.read(stop_asked, 1)
    for server in servers:
        server.shutdown()
        server.accept_waiting()
        server.server_close()
    algorithm.stop()
    calls.wait_for_arrivals(ARRIVAL_GRACE)
    calls.wait_for_none(CALL_GRACE)
    algorithm.end()
    calls.wait_for_none(LAST_WORDS)


def main() -> int:
    """Run as the environment says, until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = settings_from(os.environ)
    except SettingsError as problem:
        print(f"longshore: {problem}", file=sys.stderr)
        return 2
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    leave_pid_one()
    stop_asked = _pipe_of_stop_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    try:
        listeners = _listeners(settings)
    except OSError as problem:
        print(f"longshore: cannot listen: {problem}", file=sys.stderr)
        return 2
    algorithm = Algorithm(settings.algorithm_name, settings.source_directory, os.environ)
    try:
        wanted = not settings.socket_sealed or wait_until_sealed(str(settings.socket_path), stop_asked)
    except TimeoutError as problem:
        print(f"longshore: {problem}; the algorithm was not started", file=sys.stderr)
        return 2
    if wanted:
        algorithm.start()
        serve(algorithm, listeners, settings.max_request_bytes, stop_asked)
    if settings.socket_path is not None:
        with contextlib.suppress(OSError):
            os.unlink(settings.socket_path)
    return 0


def _listeners(settings: Settings) -> list[socket.socket]:
    listeners = [] if settings.port == 0 else [tcp_listener(settings.port)]
    if settings.socket_path is not None:
        listeners.append(unix_listener(settings.socket_path))
    return listeners


def _pipe_of_stop_signals() -> int:
    """A descriptor that can be read once a stop was asked for.

    Written by the interpreter's own handler, in whichever thread the signal comes: one of ours runs in the main thread
    only, and never where that began to wait in the same instant.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in FORWARDED:
        signal.signal(number, _nothing_more)
    return reader


def _nothing_more(_number: int, _frame: FrameType | None) -> None:
    pass
