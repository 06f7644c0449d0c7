"""Run child processes with a deadline and cancellation; the whole process group ends with the child.

Nothing is inherited from the environment of this process, and only the end of a child's messages is kept in memory.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from shared.cancellation import CancelToken, call_after
from shared.errors import LongshoreError

MAX_MESSAGE_BYTES = 16 * 1024
"""How much of the end of a child's messages is kept; a child can write without end."""
GENTLE_END_TIMEOUT_SECONDS = 5
READER_TIMEOUT_SECONDS = 2
"""How long messages are read after the end of the child: a process that left its group may hold the pipe for ever."""


class SubprocessTimeoutError(LongshoreError):
    """Raised when a child process was killed because its deadline had passed."""


class Subprocess:
    """A child process that leads a process group of its own. Whoever starts one must call `end`, or use `running`.

    Its messages are what it writes to stderr, with `merge_output` to stdout as well. Otherwise the caller reads stdout.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        environment: Mapping[str, str],
        timeout: float,
        cwd: Path | None = None,
        has_input: bool = False,
        merge_output: bool = False,
    ) -> None:
        """Start the child. It is killed after `timeout` seconds.

        Raises:
            OSError: the program cannot be started.
        """
        self._process = subprocess.Popen(
            args,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_output else subprocess.PIPE,
            start_new_session=True,  # a group that can be killed as a whole
        )
        self.pid = self._process.pid
        self.timed_out = False
        self._lock = threading.Lock()
        self._is_reaped = False
        self._messages = bytearray()
        pipes = [self._process.stdin, self._process.stdout, self._process.stderr]
        messages = pipes.pop(1 if merge_output else 2)  # its reader closes it
        self._pipes = [pipe for pipe in pipes if pipe is not None]
        self._reader = threading.Thread(target=self._read_messages, args=(messages,), daemon=True)
        self._reader.start()
        self._timer = _start_timer(timeout, self._time_out)

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - started with has_input
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - always a pipe
        return self._process.stdout

    @property
    def messages(self) -> str:
        return bytes(self._messages).decode("utf-8", "replace").strip()

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the whole group, from any thread. Does nothing once it has ended."""
        with self._lock:
            # Until the leader is reaped, its number cannot belong to another process.
            if not self._is_reaped:
                os.killpg(self.pid, signal_number)

    def wait(self) -> int:
        """Wait for the child to end, kill the rest of its group, and return its exit status; negative for a signal."""
        if not self._is_reaped:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self._timer.cancel()
            self.kill()
            with self._lock:
                self._process.wait()
                self._is_reaped = True
            self._reader.join(READER_TIMEOUT_SECONDS)
        return self._process.returncode

    def terminate(self) -> None:
        """Ask the whole group to end, and kill it some seconds later, from any thread. Does not wait."""
        self._timer.cancel()
        self._timer = _start_timer(GENTLE_END_TIMEOUT_SECONDS, self.kill)
        self.kill(signal.SIGTERM)

    def end(self, *, gently: bool = False) -> None:
        """Make sure that the whole group has ended. With `gently` it gets some seconds to remove its lock files."""
        if not self._is_reaped:
            with call_after(GENTLE_END_TIMEOUT_SECONDS, self.kill):
                self.kill(signal.SIGTERM if gently else signal.SIGKILL)
                self.wait()
        for pipe in self._pipes:
            with suppress(OSError):  # input that was not written before the child ended
                pipe.close()

    def _time_out(self) -> None:
        self.timed_out = True
        self.kill()

    def _read_messages(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), 4096):
                self._messages += chunk
                del self._messages[:-MAX_MESSAGE_BYTES]


def _start_timer(seconds: float, callback: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(max(seconds, 0), callback)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def running(process: Subprocess, stop: CancelToken | None = None) -> Iterator[Subprocess]:
    """Use a child process in a block, and end it with the block. Cancelling `stop` kills it.

    Raises:
        SubprocessTimeoutError: its deadline passed.
        WorkCancelledError: `stop` was cancelled.
    """
    with ExitStack() as stack:
        stack.callback(process.end)
        if stop is not None:
            stack.enter_context(stop.on_cancel(process.kill))
        try:
            yield process
        except Exception:
            if not process.timed_out:
                raise
        if process.timed_out:
            raise SubprocessTimeoutError("The process did not end before its deadline and was killed.")
