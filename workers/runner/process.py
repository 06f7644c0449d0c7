"""One life of the algorithm's process, and the platform's pipe protocol.

The process prints a marker when it has loaded; a call is a line of JSON on its standard input, the answer a line of
JSON through a named pipe at a fixed path. See `adk/ADK.py` of `algorithmia-adk` 1.2.4.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

from .output import CHUNK_BYTES, PIPE_PATH, Head, MarkerFilter, Tail, fresh_pipe, pass_on, read_some


@dataclass
class Call:
    """One call, from its request to what came of it."""

    request: memoryview
    printed: Head = field(default_factory=Head)
    answer: bytes | None = None
    """The line that came through the pipe; None where the process ended first or the time was over."""
    in_time: bool = True


class AlgorithmProcess:
    """The process, started by the constructor.

    One thread of its own does all reading and writing, so what the process printed before it answered is known to
    belong to that call; another waits for its end. Every public method may be called from any thread, `call` from
    one at a time.
    """

    def __init__(self, command: list[str], directory: str, environment: dict[str, str]) -> None:
        """Start the process.

        Raises:
            OSError: the named pipe could not be made, or the program not be started.
        """
        self._changed = threading.Condition()
        self._marker = MarkerFilter()
        self._call: Call | None = None
        self._errors = Tail()
        self._line = bytearray()
        self._over = False
        self._pipe = fresh_pipe()
        try:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            os.close(self._pipe)
            raise
        self._wake_reader, self._wake_writer = os.pipe()
        self._stdin, self._stdout, self._stderr = (
            stream.fileno()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr)
            if stream is not None
        )
        for descriptor in (self._stdin, self._stdout, self._stderr, self._wake_reader, self._wake_writer):
            os.set_blocking(descriptor, False)
        threading.Thread(target=self._attend, name="algorithm-streams", daemon=True).start()
        threading.Thread(target=self._await_end, name="algorithm-end", daemon=True).start()

    @property
    def loaded(self) -> bool:
        """Whether the kit ever said that the algorithm has loaded."""
        return self._marker.seen

    @property
    def over(self) -> bool:
        """Whether the process has ended and all that it left behind was read."""
        return self._over

    @property
    def exit_status(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._process.returncode

    @property
    def errors(self) -> str:
        """The end of what it wrote to standard error since it began to load or, later, since the last call began."""
        with self._changed:
            return self._errors.text()

    def wait_until_loaded(self, deadline: float) -> bool:
        """Wait until it has loaded or ended; False where `deadline` (on the monotonic clock, seconds) came first."""
        with self._changed:
            return self._changed.wait_for(lambda: self.loaded or self._over, max(0.0, deadline - time.monotonic()))

    def call(self, request: bytes, deadline: float) -> Call:
        """Send one line, without its line end, and wait for the answer, for the process's end or for the deadline.

        At the deadline (on the monotonic clock, seconds) the process is killed: there is no other way to stop a call.
        """
        call = Call(request=memoryview(request + b"\n"))
        with self._changed:
            self._errors.clear()
            self._call = call
            self._wake()
            call.in_time = self._changed.wait_for(
                lambda: call.answer is not None or self._over, max(0.0, deadline - time.monotonic())
            )
            self._call = None
        if not call.in_time:
            self.kill()
        return call

    def end(self, grace: float) -> None:
        """Ask the process to end, and kill it and its children after `grace` seconds."""
        with contextlib.suppress(ProcessLookupError):
            if not self._over:
                os.killpg(self._process.pid, signal.SIGTERM)
        with self._changed:
            self._changed.wait_for(lambda: self._over, grace)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children, and wait until it is gone."""
        with self._changed:
            if not self._over:
                self._kill_group()
            self._changed.wait_for(lambda: self._over)

    def _await_end(self) -> None:
        self._process.wait()
        self._kill_group()
        with self._changed:
            self._wake()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wake(self) -> None:
        """Make the streams' thread look around; under the lock, for the descriptor is closed under it."""
        if not self._over:
            with contextlib.suppress(BlockingIOError):  # full: it is awake already
                os.write(self._wake_writer, b"!")

    def _attend(self) -> None:
        """Read and write until the process has ended; then read what is left, and close everything."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._pipe, self._stdout, self._stderr, self._wake_reader):
                selector.register(descriptor, selectors.EVENT_READ)
            while self._process.returncode is None:
                for key, _ in selector.select():
                    self._serve(key.fd, selector)
        self._take_answer()
        self._printed(self._marker.rest())
        with self._changed:
            self._close()
            self._over = True
            self._changed.notify_all()

    def _serve(self, descriptor: int, selector: selectors.BaseSelector) -> None:
        if descriptor == self._wake_reader:
            read_some(descriptor)
            if self._call is not None and self._call.request and self._stdin not in selector.get_map():
                selector.register(self._stdin, selectors.EVENT_WRITE)
        elif descriptor == self._stdin:
            if not self._send_request():
                selector.unregister(self._stdin)
        elif descriptor == self._pipe:
            self._take_answer()
        elif not self._take_output(descriptor):
            selector.unregister(descriptor)

    def _send_request(self) -> bool:
        """Write what fits; False where nothing is left to write."""
        call = self._call
        if call is None:
            return False
        try:
            written = os.write(self._stdin, call.request[:CHUNK_BYTES])
        except BlockingIOError:
            return True
        except OSError:  # the process closed its standard input: the call ends with the process, or in time
            call.request = memoryview(b"")
            return False
        call.request = call.request[written:]
        return bool(call.request)

    def _take_answer(self) -> None:
        """Read the pipe; a whole line answers the call, once all that was printed before it has been read too."""
        data = read_some(self._pipe) or b""
        self._take_output(self._stdout)
        self._take_output(self._stderr)
        if b"\n" not in data:
            self._line += data
            return
        end, _, rest = data.partition(b"\n")
        line = bytes(self._line) + end
        self._line = bytearray(rest.rpartition(b"\n")[2])
        with self._changed:
            if self._call is not None and not self._call.request and self._call.answer is None:
                self._call.answer = line
                self._changed.notify_all()

    def _take_output(self, descriptor: int) -> bool:
        """Read what is there; False at the stream's end."""
        data = read_some(descriptor)
        if data is None:
            return False
        if descriptor == self._stderr:
            with self._changed:
                self._errors.add(data)
            pass_on(2, data)
        else:
            self._printed(self._marker.feed(data))
        return True

    def _printed(self, data: bytes) -> None:
        with self._changed:
            if self._call is not None and self._call.answer is None:
                self._call.printed.add(data)
            self._changed.notify_all()
        pass_on(1, data)

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        for descriptor in (self._pipe, self._wake_reader, self._wake_writer):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(PIPE_PATH)
