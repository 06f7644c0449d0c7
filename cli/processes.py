"""Supervise the child processes of `longshore up`: restart them, print their output, kill their process groups."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shared.plain_text import plain_line

PARENT_DEATH = Path(__file__).with_name("parent_death.py")
MAX_LINE_BYTES = 256 * 1024
STABLE_SECONDS = 60
"""After a child has run this long, the restart delay is the shortest again."""
MIN_RESTART_DELAY_SECONDS = 1.0
MAX_RESTART_DELAY_SECONDS = 30.0
IGNORED_LINES = (b"Memory overcommit must be enabled",)
"""Redis prints it at each start. This Redis saves nothing, so it never forks."""


class Output:
    """Standard output, shared by all children."""

    def __init__(self, *, as_json: bool, width: int) -> None:
        self._as_json = as_json
        self._width = width
        self._is_terminal = sys.stdout.isatty()

    def print_line(self, name: str, text: str) -> None:
        """Print one line of a child, or of the supervisor itself."""
        if self._as_json:
            line = _as_json(name, text)
        else:
            text = plain_line(text)
            prefix = f"{name:<{self._width}} |"
            line = f"\x1b[36m{prefix}\x1b[0m {text}" if self._is_terminal else f"{prefix} {text}"
        with contextlib.suppress(BrokenPipeError):  # the reader has closed the pipe; the children keep running
            print(line, flush=True)


def _as_json(name: str, text: str) -> str:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        fields = {"event": text, "level": "info"}
    return json.dumps({**fields, "process": name})


class Child:
    """One child process, leader of a process group. It is restarted when it ends, unless it runs `once`."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], output: Output, *, once: bool = False
    ) -> None:
        self.name = name
        self.unexpected_ends = 0
        self._command = command
        self._environment = environment
        self._output = output
        self._once = once
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def finished(self) -> int:
        """Wait until it has ended for good, and return its exit status."""
        return 0 if self._task is None else await self._task

    async def stop(self, *, seconds: float) -> None:
        """Send SIGTERM, and kill the group after so many seconds."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._task is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._output.print_line(self.name, f"did not end within {seconds:.0f} s and is killed")
            self.kill()
            await self._task

    def kill(self) -> None:
        """Kill its whole process group."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _supervise(self) -> int:
        delay = MIN_RESTART_DELAY_SECONDS
        while True:
            began_at = time.monotonic()
            status = await self._run()
            if self._stopping.is_set() or self._once:
                return status
            self.unexpected_ends += 1
            if time.monotonic() - began_at > STABLE_SECONDS:
                delay = MIN_RESTART_DELAY_SECONDS
            self._output.print_line(self.name, f"ended ({_describe(status)}) and is started again in {delay:.0f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                return status
            delay = min(2 * delay, MAX_RESTART_DELAY_SECONDS)

    async def _run(self) -> int:
        # Not asyncio's own pipe: with that, wait() would wait for every process that holds its other end.
        read_end, write_end = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(PARENT_DEATH), str(os.getpid()), *self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches the supervisor only, and the group can be killed as a whole
            )
        finally:
            os.close(write_end)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        printing = asyncio.create_task(_each_line(read_end, self._print))
        status = await process.wait()
        _kill_group(process.pid)  # processes that it left would hold ports and the pipe
        await printing
        return status

    def _print(self, line: bytes) -> None:
        if not any(text in line for text in IGNORED_LINES):
            self._output.print_line(self.name, line.decode(errors="replace"))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _each_line(read_end: int, handle: Callable[[bytes], None]) -> None:
    stream = asyncio.StreamReader()
    transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb", buffering=0)
    )
    rest = b""
    while chunk := await stream.read(MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            handle(line)
    if rest:
        handle(rest)
    transport.close()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
