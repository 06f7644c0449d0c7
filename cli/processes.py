"""Child processes of `longshore up`: kept running, their output shown line by line, ended with all they started."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PARENT_DEATH = Path(__file__).with_name("parent_death.py")
MAX_LINE = 256 * 1024
SETTLED_SECONDS = 60
"""A child that ran this long starts again with the shortest wait when it ends."""
MAX_WAIT = 30.0
OF_NO_INTEREST = (b"Memory overcommit must be enabled",)
"""Redis says it at each start; this one saves nothing, so it never forks."""


class Output:
    """The terminal, or wherever standard output goes, shared by all children."""

    def __init__(self, *, as_json: bool, width: int) -> None:
        self._as_json = as_json
        self._width = width
        self._colours = sys.stdout.isatty()

    def line(self, name: str, text: str) -> None:
        """One line of a child, or of the supervisor itself."""
        if self._as_json:
            shown = _as_json(name, text)
        else:
            prefix = f"{name:<{self._width}} |"
            shown = f"\x1b[36m{prefix}\x1b[0m {text}" if self._colours else f"{prefix} {text}"
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more; that is no reason to stop
            print(shown, flush=True)


def _as_json(name: str, text: str) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        said = {"event": text, "level": "info"}
    return json.dumps({**said, "process": name})


class Child:
    """One child: started, started again when it ends, stopped with its whole process group."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], output: Output, *, once: bool = False
    ) -> None:
        self.name = name
        self.ends = 0
        """How many times it ended without being asked to."""
        self._command = command
        self._environment = environment
        self._output = output
        self._once = once
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        """Start it, and keep it running."""
        self._task = asyncio.create_task(self._keep())

    async def finished(self) -> int:
        """Wait until it is over for good, and return how it ended."""
        return 0 if self._task is None else await self._task

    async def stop(self, *, seconds: float) -> None:
        """Ask it to end; kill it after so many seconds."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._task is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._output.line(self.name, f"did not end within {seconds:.0f} s and is killed")
            self.kill()
            await self._task

    def kill(self) -> None:
        """End it and everything in its process group at once."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _keep(self) -> int:
        wait = 1.0
        while True:
            began = time.monotonic()
            status = await self._run()
            if self._stopping.is_set() or self._once:
                return status
            self.ends += 1
            if time.monotonic() - began > SETTLED_SECONDS:
                wait = 1.0
            self._output.line(self.name, f"ended ({_how(status)}) and is started again in {wait:.0f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
                return status
            wait = min(2 * wait, MAX_WAIT)

    async def _run(self) -> int:
        # Not asyncio's own pipe: with that, wait() would wait for everybody who holds its other end.
        said, saying = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(PARENT_DEATH), str(os.getpid()), *self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=saying,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is the supervisor's; and a group that can be killed whole
            )
        finally:
            os.close(saying)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        showing = asyncio.create_task(_each_line(said, self._show))
        status = await process.wait()
        _kill_group(process.pid)  # whatever it left behind: it would hold ports and the pipe
        await showing
        return status

    def _show(self, line: bytes) -> None:
        if not any(text in line for text in OF_NO_INTEREST):
            self._output.line(self.name, line.decode(errors="replace"))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _each_line(said: int, show: Callable[[bytes], None]) -> None:
    stream = asyncio.StreamReader()
    transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(said, "rb", buffering=0)
    )
    rest = b""
    while chunk := await stream.read(MAX_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            show(line)
    if rest:
        show(rest)
    transport.close()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
