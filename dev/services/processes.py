"""Run child processes that never outlive their parent, each with a log and a readiness check."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_SYSTEM_DIRECTORIES = ("/usr/sbin", "/sbin")
_POLL_INTERVAL_SECONDS = 0.05
_PORTS = range(20_000, 32_000)  # below Linux's ephemeral range, from which any outgoing connection may take one


class ServiceFailedError(RuntimeError):
    """Raised when a service cannot be started; the message has the cause and what to do."""


def find_program(name: str) -> str | None:
    """Return the full path of a program, also from the system directories; None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_DIRECTORIES]))


def required_program(name: str) -> str:
    """Return the full path of a program.

    Raises:
        ServiceFailedError: it is not installed.
    """
    path = find_program(name)
    if path is None:
        raise ServiceFailedError(
            f"{name} is not installed: `python3 -m dev.services.packages test` installs all programs of the services"
        )
    return path


def say(text: str) -> None:
    """Print one line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now, outside the ephemeral range.

    Raises:
        ServiceFailedError: a hundred ports were all in use.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceFailedError("no free port found on 127.0.0.1")


def port_answers(port: int) -> bool:
    """Return whether a server accepts connections on this port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block, so that starting and stopping are never interrupted.

    Blocking the signals in this thread is not enough: another thread would get them, and Python would still run the
    handler here. Outside the main thread, where no handler runs, this is a no-op.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise SystemExit in the block, so that its services are stopped. Main thread only."""

    def exit_process(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def descendants(pid: int) -> list[int]:
    """Return the ids of all descendants of a process, deepest first."""
    children: list[int] = []
    with suppress(OSError):  # processes and threads may end at any moment
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += [int(child) for child in (task / "children").read_text().split()]
    return [member for child in children for member in [*descendants(child), child]]


class Child:
    """A started process, leader of its own process group."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, *, log_start: int = 0) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self._process = process
        self._log_start = log_start

    @property
    def exit_status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        return self._process.wait(seconds)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Poll until `ready` returns true; an OSError in it means not yet.

        Raises:
            ServiceFailedError: the process ended, or was not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                is_ready = ready()
            except OSError:
                is_ready = False
            if self.exit_status is not None:
                raise ServiceFailedError(f"{self.name} ended with status {self.exit_status}:\n{self.last_lines()}")
            if is_ready:
                return
            if time.monotonic() > deadline:
                raise ServiceFailedError(f"{self.name} was not ready within {seconds:.0f} s:\n{self.last_lines()}")
            time.sleep(_POLL_INTERVAL_SECONDS)

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def logged(self, text: str) -> bool:
        """Return whether the process has written a text to its log; the log may be older than the process."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return text.encode() in log.read()

    def family(self) -> list[int]:
        """Return the ids of its descendants, deepest first, and its own."""
        return [*descendants(self.pid), self.pid]

    def stop(self, number: signal.Signals = signal.SIGTERM, *, grace: float) -> None:
        """Send a signal, and kill the process after so many seconds; the rest of its group is killed in any case."""
        if self.exit_status is None:
            self._process.send_signal(number)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # the group ended with its leader, as usual


def _spawn(
    name: str,
    command: Sequence[str],
    log: Path,
    stop_signal: signal.Signals,
    user: str | None,
    environment: Mapping[str, str] | None,
) -> Child:
    # setpriv requests the signal after changing the user (the kernel clears it at such a change) and then executes the
    # next program: no Python runs between fork and exec, which would not be safe with other threads. The shell
    # continues only if the parent still lives: if it had ended before the request, no signal would ever come.
    launcher = [required_program("setpriv"), "--pdeathsig", stop_signal.name.removeprefix("SIG")]
    if user is not None:
        launcher += ["--reuid", user, "--regid", user, "--init-groups"]
    launcher += ["--", "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            process_group=0,
        )
    return Child(name, process, log, log_start=log_start)


@contextmanager
def _started(
    name: str,
    command: Sequence[str],
    log: Path,
    stop_signal: signal.Signals,
    user: str | None,
    environment: Mapping[str, str] | None,
    grace: float,
) -> Iterator[Child]:
    child: Child | None = None
    try:
        with signals_deferred():
            child = _spawn(name, command, log, stop_signal, user, environment)
        yield child
    finally:
        if child is not None:
            with signals_deferred():
                child.stop(stop_signal, grace=grace)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    seconds: float = 30,
    grace: float = 10,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run a service during the block, from its readiness until the end of its process group.

    It also gets `stop_signal` when the thread that started it ends in any way, so enter this from the main thread.

    Args:
        seconds: timeout until `ready`.
        grace: seconds between `stop_signal` and SIGKILL.
        user: user of the process (root only).
        environment: variables in addition to the inherited ones.

    Raises:
        ServiceFailedError: it ended, or was not ready in time.
    """
    with _started(name, command, log, stop_signal, user, environment, grace) as child:
        child.wait_until(ready, seconds=seconds)
        yield child


def run_to_end(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end; an interrupt stops it.

    Raises:
        ServiceFailedError: it failed; the message has the end of its log.
    """
    with _started(name, command, log, signal.SIGTERM, user, environment, grace=10) as child:
        status = child.wait()
    if status != 0:
        raise ServiceFailedError(f"{name} failed with status {status}:\n{child.last_lines()}")
