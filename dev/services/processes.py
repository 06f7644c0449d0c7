"""Child processes that never outlive their parent: started with a log, awaited by a real answer, ended by pid."""

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
_POLL_SECONDS = 0.05
_PORTS = range(20_000, 32_000)  # below Linux's ephemeral range, from which any outgoing connection may take one


class PartFailedError(RuntimeError):
    """A part could not be had; the text says why and what to do."""


def find_program(name: str) -> str | None:
    """The full path of a program, looked for in the system directories too; None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_DIRECTORIES]))


def required_program(name: str) -> str:
    """The full path of a program.

    Raises:
        PartFailedError: it is not installed.
    """
    found = find_program(name)
    if found is None:
        raise PartFailedError(
            f"{name} is not installed: `python3 -m dev.services.packages test` installs what the parts need"
        )
    return found


def say(text: str) -> None:
    """One line of progress for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens at this moment, outside the ephemeral range.

    Raises:
        PartFailedError: a hundred ports were all taken.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PartFailedError("no free port found on 127.0.0.1")


def port_answers(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is over, so that starting and stopping are never left half done.

    Blocking the signals in this thread would not do: another thread would take them and Python would run the handler
    here all the same. Outside the main thread, where no handler can run, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the block (and so stops its parts) instead of ending the process at once. Main thread only."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def descendants(pid: int) -> list[int]:
    """The ids of all processes that descend from this one, deepest first."""
    children: list[int] = []
    with suppress(OSError):  # processes and threads end at any moment
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += [int(child) for child in (task / "children").read_text().split()]
    return [member for child in children for member in [*descendants(child), child]]


class Child:
    """One started process, leader of a process group of its own."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, *, log_begins: int = 0) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self._process = process
        self._log_begins = log_begins

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        return self._process.wait(seconds)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Poll until `ready` says yes; an OSError in it means not yet.

        Raises:
            PartFailedError: the process ended or did not become ready in time; carries the end of its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                answered = ready()
            except OSError:
                answered = False
            if self.exit_status is not None:
                raise PartFailedError(f"{self.name} ended with status {self.exit_status}:\n{self.last_lines()}")
            if answered:
                return
            if time.monotonic() > deadline:
                raise PartFailedError(f"{self.name} did not answer within {seconds:.0f} s:\n{self.last_lines()}")
            time.sleep(_POLL_SECONDS)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def said(self, text: str) -> bool:
        """Whether a text stands in its log since it was started (the log may be older than that)."""
        with self.log.open("rb") as log:
            log.seek(self._log_begins)
            return text.encode() in log.read()

    def family(self) -> list[int]:
        """Its process id and those of all that descend from it, deepest first."""
        return [*descendants(self.pid), self.pid]

    def stop(self, number: signal.Signals = signal.SIGTERM, *, grace: float) -> None:
        """Ask it to end, wait for so many seconds, then kill; what is left of its group is killed in any case."""
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
            return  # the usual case: the group ended with its leader


def _spawn(
    name: str,
    command: Sequence[str],
    log: Path,
    stop_signal: signal.Signals,
    user: str | None,
    environment: Mapping[str, str] | None,
) -> Child:
    # setpriv asks for the signal after it changed the user (the kernel forgets it at such a change) and then becomes
    # the next program: no Python runs between fork and exec, which would not be safe beside other threads. The shell
    # goes on only if the parent still lives: had it ended before setpriv asked, no signal would ever come.
    launcher = [required_program("setpriv"), "--pdeathsig", stop_signal.name.removeprefix("SIG")]
    if user is not None:
        launcher += ["--reuid", user, "--regid", user, "--init-groups"]
    launcher += ["--", "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    with log.open("ab") as output:
        log_begins = output.tell()
        process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            process_group=0,
        )
    return Child(name, process, log, log_begins=log_begins)


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
    """A service for the length of the block: started, answering, and ended with everything in its process group.

    It also gets `stop_signal` when the thread that started it ends in any way, so enter this from the main thread.

    Args:
        seconds: how long it may take until `ready`.
        grace: seconds between `stop_signal` and SIGKILL.
        user: whose process it becomes (root only).
        environment: variables beside the inherited ones.

    Raises:
        PartFailedError: it ended early or did not answer in time.
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
    """Run a program that ends by itself; an interrupt ends it first.

    Raises:
        PartFailedError: it failed; carries the end of its log.
    """
    with _started(name, command, log, signal.SIGTERM, user, environment, grace=10) as child:
        status = child.wait()
    if status != 0:
        raise PartFailedError(f"{name} failed with status {status}:\n{child.last_lines()}")
