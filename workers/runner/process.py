"""One process of the algorithm, and the development kit's pipe protocol.

The process prints a marker when it has loaded, or writes a byte to a descriptor of its own, which also works when the
algorithm has replaced its standard output. A call is a line of JSON on its standard input, the result a line of JSON
through a named pipe at a fixed path. See `adk/ADK.py` of `algorithmia-adk` 1.2.4.
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

from .output import CHUNK_BYTES, PIPE_PATH, HeadBuffer, MarkerFilter, TailBuffer, create_pipe, forward, read_available


@dataclass
class Call:
    """One call of the process.

    `request` has the bytes that are still to be written. `delivered`: any byte was written; a process that ended
    without one has not begun the call. `result` is the line that came through the pipe; None if the process ended
    first, or the call timed out.
    """

    request: memoryview
    delivered: bool = False
    stdout: HeadBuffer = field(default_factory=HeadBuffer)
    result: bytes | None = None
    timed_out: bool = False


class AlgorithmProcess:
    """A running process, started by the constructor.

    One thread does all reading and writing, so that output which the process wrote before a result belongs to that
    call; another thread waits for its exit. Public methods are thread-safe, but only one `call` may run at a time.
    """

    def __init__(self, command: list[str], directory: str, environment: dict[str, str], *mode: str) -> None:
        """Start the process. The command gets two things more: the number of its descriptor, and `mode`.

        Raises:
            OSError: the named pipe could not be created, or the program could not be started.
        """
        self._changed = threading.Condition()
        self._marker = MarkerFilter()
        self._call: Call | None = None
        self._errors = TailBuffer()
        self._line = bytearray()
        self._load_error: bytes | None = None
        self._ended = False
        self._pipe = create_pipe()
        self._loaded_reader, loaded_writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(loaded_writer), *mode],
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                pass_fds=(loaded_writer,),
            )
        except OSError:
            os.close(self._pipe)
            os.close(self._loaded_reader)
            raise
        finally:
            os.close(loaded_writer)
        self._wake_reader, self._wake_writer = os.pipe()
        self._stdin, self._stdout, self._stderr = (
            stream.fileno()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr)
            if stream is not None
        )
        for descriptor in (
            self._stdin, self._stdout, self._stderr, self._loaded_reader, self._wake_reader, self._wake_writer,
        ):  # fmt: skip
            os.set_blocking(descriptor, False)
        threading.Thread(target=self._transfer, name="algorithm-streams", daemon=True).start()
        threading.Thread(target=self._wait_for_exit, name="algorithm-exit", daemon=True).start()

    @property
    def loaded(self) -> bool:
        return self._marker.seen

    @property
    def load_error(self) -> bytes | None:
        """The response that came through the pipe before it had loaded: older kits report an error of `load` so."""
        return self._load_error

    @property
    def ended(self) -> bool:
        """Whether the process has ended and all of its output was read."""
        return self._ended

    @property
    def exit_status(self) -> int | None:
        """The exit status, or minus the number of the signal that ended it; None while it runs."""
        return self._process.returncode

    @property
    def errors(self) -> str:
        """The end of its standard error since the start of the last call, or of loading before the first call."""
        with self._changed:
            return self._errors.text()

    def wait_until_loaded(self, deadline: float) -> bool:
        """Wait until it has loaded or ended; return False if `deadline` (monotonic clock, seconds) passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self.loaded or self._ended, max(0.0, deadline - time.monotonic()))

    def call(self, request: bytes, deadline: float) -> Call:
        """Send one line, without its line end, and wait for the result, the end of the process, or the deadline.

        At the deadline (monotonic clock, seconds) the process is killed: a call cannot be stopped in another way.
        """
        call = Call(request=memoryview(request + b"\n"))
        with self._changed:
            self._errors.clear()
            self._call = call
            self._wake()
            call.timed_out = not self._changed.wait_for(
                lambda: call.result is not None or self._ended, max(0.0, deadline - time.monotonic())
            )
            self._call = None
        if call.timed_out:
            self.kill()
        return call

    def end(self, grace_seconds: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            if not self._ended:
                os.killpg(self._process.pid, signal.SIGTERM)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, grace_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children, and wait until it has ended."""
        with self._changed:
            if not self._ended:
                self._kill_group()
            self._changed.wait_for(lambda: self._ended)

    def _wait_for_exit(self) -> None:
        self._process.wait()
        self._kill_group()
        with self._changed:
            self._wake()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wake(self) -> None:
        """Wake the stream thread. The caller has the lock, under which the descriptor is closed too."""
        if not self._ended:
            with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread is awake already
                os.write(self._wake_writer, b"!")

    def _transfer(self) -> None:
        """Read and write until the process has ended; then read the rest, and close everything."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._pipe, self._stdout, self._stderr, self._loaded_reader, self._wake_reader):
                selector.register(descriptor, selectors.EVENT_READ)
            while self._process.returncode is None:
                for key, _ in selector.select():
                    self._handle(key.fd, selector)
        self._read_result()
        self._read_loaded()
        self._add_stdout(self._marker.flush())
        with self._changed:
            self._close()
            self._ended = True
            self._changed.notify_all()

    def _handle(self, descriptor: int, selector: selectors.BaseSelector) -> None:
        if descriptor == self._wake_reader:
            read_available(descriptor)
            if self._call is not None and self._call.request and self._stdin not in selector.get_map():
                selector.register(self._stdin, selectors.EVENT_WRITE)
        elif descriptor == self._stdin:
            if not self._write_request():
                selector.unregister(self._stdin)
        elif descriptor == self._pipe:
            self._read_result()
        elif descriptor == self._loaded_reader:
            self._read_loaded()
            selector.unregister(descriptor)
        elif not self._read_output(descriptor):
            selector.unregister(descriptor)

    def _write_request(self) -> bool:
        """Write as much as the pipe takes; return False when nothing is left to write."""
        call = self._call
        if call is None:
            return False
        try:
            written = os.write(self._stdin, call.request[:CHUNK_BYTES])
        except BlockingIOError:
            return True
        except OSError:  # the process has closed its standard input: the call ends with the process or at its deadline
            call.request = memoryview(b"")
            return False
        call.delivered = True
        call.request = call.request[written:]
        return bool(call.request)

    def _read_result(self) -> None:
        """Read the pipe. A complete line ends the call, after all output that came before it has been read too."""
        data = read_available(self._pipe) or b""
        self._read_output(self._stdout)
        self._read_output(self._stderr)
        if b"\n" not in data:
            self._line += data
            return
        end, _, rest = data.partition(b"\n")
        line = bytes(self._line) + end
        self._line = bytearray(rest.rpartition(b"\n")[2])
        with self._changed:
            if self._call is not None and not self._call.request and self._call.result is None:
                self._call.result = line
                self._changed.notify_all()
            elif not self.loaded:
                self._load_error = line

    def _read_loaded(self) -> None:
        """Read whether the process waits for requests, after all output that came before."""
        data = read_available(self._loaded_reader)
        self._read_output(self._stdout)
        self._read_output(self._stderr)
        if data and not self._marker.seen:
            self._add_stdout(self._marker.pass_all())

    def _read_output(self, descriptor: int) -> bool:
        """Read standard output or standard error; return False at its end."""
        data = read_available(descriptor)
        if data is None:
            return False
        if descriptor == self._stderr:
            with self._changed:
                self._errors.add(data)
            forward(2, data)
        else:
            self._add_stdout(self._marker.feed(data))
        return True

    def _add_stdout(self, data: bytes) -> None:
        with self._changed:
            if self._call is not None and self._call.result is None:
                self._call.stdout.add(data)
            self._changed.notify_all()
        forward(1, data)

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        for descriptor in (self._pipe, self._loaded_reader, self._wake_reader, self._wake_writer):
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(PIPE_PATH)
