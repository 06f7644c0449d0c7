"""Run the runner: listen on a TCP port and a unix socket, start the algorithm, and stop on SIGTERM or SIGINT.

As a container's first process it stays behind, to forward signals and to reap orphans; a child does the work.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING

from .algorithm import AlgorithmRunner
from .check import check_import
from .http_server import BACKLOG, CallCounter, RunnerServer
from .outgoing_calls import OutgoingCalls
from .outgoing_server import OutgoingServer, client_environment
from .settings import RunnerSettingsError, read_settings

if TYPE_CHECKING:
    from types import FrameType

SEALING_TIMEOUT_SECONDS = 10.0

SEALING_POLL_INTERVAL_SECONDS = 0.01

SERVER_POLL_INTERVAL_SECONDS = 0.2

CALL_GRACE_SECONDS = 10.0
"""Seconds that a running call has to end after the runner was told to stop."""

FIRST_REQUEST_GRACE_SECONDS = 2.0
"""Seconds that an already connected client has to send its request, to get a response that says so."""

RESPONSE_GRACE_SECONDS = 1.0
"""Seconds to write the responses of calls that were ended."""

UNUSED_PORT = 9
"""Port of the interface for an algorithm that is only imported: nobody listens there."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run with the settings of the environment until a stop signal; return the exit status.

    With the arguments `check SECONDS` it only imports the algorithm (`check.py`).
    """
    try:
        settings = read_settings(os.environ)
    except RunnerSettingsError as error:
        return _fail(str(error))
    if sys.argv[1:2] == ["check"]:
        environment = {**os.environ, **client_environment(os.environ, UNUSED_PORT)}
        check_import(settings.module, settings.source_directory, environment, float(sys.argv[2]))
        return 0
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    leave_process_one()
    stop_pipe = _stop_signal_pipe()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        listeners = [] if settings.port == 0 else [_tcp_listener(settings.port)]
        if settings.socket_path is not None:
            listeners.append(_unix_listener(settings.socket_path))
        outgoing_listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    except OSError as error:
        return _fail(f"cannot listen: {error}")
    outgoing = OutgoingCalls()
    forwarder = OutgoingServer(outgoing_listener, outgoing, settings.max_request_bytes)
    environment = {**os.environ, **client_environment(os.environ, outgoing_listener.getsockname()[1])}
    algorithm = AlgorithmRunner(settings.module, settings.source_directory, environment)
    try:
        may_start = not settings.socket_sealed or wait_until_sealed(str(settings.socket_path), stop_pipe)
    except TimeoutError as error:
        return _fail(f"{error}; the algorithm was not started")
    if may_start:
        threading.Thread(target=forwarder.serve_forever, args=(SERVER_POLL_INTERVAL_SECONDS,), daemon=True).start()
        algorithm.start()
        serve(algorithm, listeners, outgoing, settings.max_request_bytes, stop_pipe)
    if settings.socket_path is not None:
        with contextlib.suppress(OSError):
            os.unlink(settings.socket_path)
    return 0


def serve(
    algorithm: AlgorithmRunner,
    listeners: list[socket.socket],
    outgoing: OutgoingCalls,
    max_request_bytes: int,
    stop_pipe: int,
) -> None:
    """Serve until a byte can be read from `stop_pipe`; then let the running call finish, and end the algorithm."""
    calls = CallCounter()
    servers = [RunnerServer(listener, algorithm, calls, outgoing, max_request_bytes) for listener in listeners]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(SERVER_POLL_INTERVAL_SECONDS,), daemon=True).start()
    os.read(stop_pipe, 1)
    for server in servers:
        server.shutdown()
        server.accept_pending()
        server.server_close()
    algorithm.stop()
    calls.wait_for_first_requests(FIRST_REQUEST_GRACE_SECONDS)
    calls.wait_for_calls(CALL_GRACE_SECONDS)
    algorithm.end()
    calls.wait_for_calls(RESPONSE_GRACE_SECONDS)


def leave_process_one() -> None:
    """If this is process 1, continue as its child; process 1 reaps orphans and exits with the child's status.

    The runner then waits for its own children alone, and never takes an exit status that other code waits for. The
    caller blocks `STOP_SIGNALS` before, and unblocks them after installing its own handlers, so that none is lost.
    """
    if os.getpid() != 1:
        return
    child = os.fork()
    if child == 0:
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in STOP_SIGNALS:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def wait_until_sealed(path: str, stop_pipe: int) -> bool:
    """Wait until this user cannot write into the socket's directory; return False if a stop signal came first.

    From then on no process of this user can replace the socket by a link or another socket, or fill the disk that the
    directory is on.

    Raises:
        TimeoutError: it is still writable after `SEALING_TIMEOUT_SECONDS`.
    """
    directory = os.path.dirname(path)
    deadline = time.monotonic() + SEALING_TIMEOUT_SECONDS
    while os.access(directory, os.W_OK):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"LONGSHORE_SOCKET_SEALED is 1, and {directory} is still writable "
                f"after {SEALING_TIMEOUT_SECONDS:g} seconds"
            )
        if select.select([stop_pipe], [], [], SEALING_POLL_INTERVAL_SECONDS)[0]:
            return False
    return True


def _tcp_listener(port: int) -> socket.socket:
    """Listen on every address, IPv6 and IPv4 where both exist."""
    if socket.has_dualstack_ipv6():
        # A machine may support IPv6 and have it disabled; then IPv4 alone is used.
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - a container's port is public


def _unix_listener(path: str) -> socket.socket:
    """Listen on a unix socket that every user may connect to, in place of one that an earlier process left."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"LONGSHORE_SOCKET: {path} exists and is not a socket")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - the directory's permissions decide; set before anybody can connect
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _stop_signal_pipe() -> int:
    """Return a descriptor that can be read after a stop signal.

    The interpreter's own handler writes to it, in the thread that gets the signal. A Python handler would run in the
    main thread only, and would be missed if that thread began to wait in the same instant.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    return reader


def _fail(message: str) -> int:
    print(f"longshore: {message}", file=sys.stderr)
    return 2
