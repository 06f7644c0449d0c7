"""Run all processes of one machine: start them in order, wait for a signal, stop them in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cli.embedded_redis import find_redis_server, is_redis_ready, redis_command, socket_directory, socket_in
from cli.errors import CommandError
from cli.ports import find_free_port
from cli.processes import Child, Output
from shared.errors import LongshoreError
from shared.jobs.queues import Queues
from shared.net.address_rules import is_loopback_host
from shared.settings import Settings

ADMIN_KEY_FILE = "admin-key"
REDIS_NOTE_FILE = "redis-directory"
POLL_INTERVAL_SECONDS = 0.1
MAX_FAILED_STARTS = 3
EXIT_MARGIN_SECONDS = 10
"""For a process to exit, after the time that its jobs and requests get to end."""
NAME_WIDTH = len("maintenance")


class StartFailedError(LongshoreError):
    """Raised when a process does not stay up."""


class StoppedEarlyError(LongshoreError):
    """Raised when a signal stopped the start."""


@dataclass(frozen=True)
class Plan:
    """The settings of one `longshore up`."""

    configured: Settings
    directory: Path
    port: int
    as_json: bool

    @property
    def url(self) -> str:
        """The public address."""
        return self.configured.model_copy(update={"port": self.port}).resolved_public_url

    @property
    def admin_key_file(self) -> Path:
        return self.directory / ADMIN_KEY_FILE


async def run(plan: Plan) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP, and return the exit status.

    Raises:
        SettingsError: no Redis is installed.
        CommandError: a process did not start.
    """
    with contextlib.ExitStack() as stack:
        redis: list[str] | None = None
        redis_url, redis_directory = plan.configured.redis_url, Path()
        if not redis_url:
            program = find_redis_server()
            redis_directory = stack.enter_context(socket_directory(plan.directory / REDIS_NOTE_FILE))
            redis = redis_command(program, redis_directory)
            redis_url = f"redis+socket://{socket_in(redis_directory)}"
        supervisor = Supervisor(plan, redis_url)
        return await supervisor.run(redis, redis_directory)


class Supervisor:
    """Starts and stops the children."""

    def __init__(self, plan: Plan, redis_url: str) -> None:
        self._plan = plan
        self._output = Output(as_json=plan.as_json, width=NAME_WIDTH)
        self._stop = asyncio.Event()
        self._children: list[Child] = []
        self._environment = _environment(plan, redis_url)

    async def run(self, redis: list[str] | None, redis_directory: Path) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        failed: StartFailedError | None = None
        try:
            if redis is not None:
                self._start("redis", redis)
                await self._wait_until(lambda: is_redis_ready(redis_directory))
            await self._migrate()
            self._start_services()
            await self._wait_until(self._ready)
            self._print_ready()
            await self._stop.wait()
        except StoppedEarlyError:
            pass
        except StartFailedError as error:
            failed = error
        await self._stop_all()
        if failed is not None:
            raise CommandError(str(failed))
        return 0

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
            return
        self._print("stopping; a second signal kills all processes immediately")
        self._stop.set()

    async def _migrate(self) -> None:
        command = ["migrate", "--admin-key", str(self._plan.admin_key_file)]
        child = self._start("migrate", _longshore(*command), once=True)
        status = await child.finished()
        self._children.remove(child)
        if self._stop.is_set():
            raise StoppedEarlyError("Stopped before everything was ready.")
        if status != 0:
            raise StartFailedError("The database could not be migrated; the lines above say why.")

    def _start_services(self) -> None:
        private = {"LONGSHORE_HOST": "127.0.0.1"}
        without_port = {"LONGSHORE_WORKER_HEALTH_PORT": "0"}  # there is one engine: one worker reports its health
        self._start("git", _longshore("git"), private)
        self._start("api", _longshore("api"), private)
        self._start("calls", _longshore("calls"), private)
        self._start("gateway", _longshore("gateway"))
        self._start(Queues.BUILDS, _longshore("worker", "--queues", Queues.BUILDS))
        self._start(Queues.PUSHES, _longshore("worker", "--queues", Queues.PUSHES), without_port)
        on_cluster = self._plan.configured.serving == "kubernetes"
        queues = Queues.SERVING if on_cluster else f"{Queues.SERVING},{Queues.NODES}"
        self._start(Queues.SERVING, _longshore("worker", "--queues", queues, "--concurrency", "4"), without_port)
        if on_cluster:
            # A worker of its own: draining nodes takes hours and would keep a process from starting instances. Two
            # processes: while one drains nodes, the other restarts instances and uncordons nodes.
            nodes = _longshore("worker", "--queues", Queues.NODES, "--concurrency", "2")
            self._start(Queues.NODES, nodes, without_port)
        # Two processes: while one delivers webhooks, which may be slow, the other sweeps.
        maintenance = _longshore("worker", "--queues", Queues.MAINTENANCE, "--concurrency", "2")
        self._start(Queues.MAINTENANCE, maintenance, without_port)
        self._start("beat", _longshore("beat"))

    def _start(
        self, name: str, command: list[str], environment: dict[str, str] | None = None, *, once: bool = False
    ) -> Child:
        child = Child(name, command, {**self._environment, **(environment or {})}, self._output, once=once)
        self._children.append(child)
        child.start()
        return child

    async def _wait_until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        while not await ready():
            for child in self._children:
                if child.unexpected_ends >= MAX_FAILED_STARTS:
                    raise StartFailedError(f"{child.name} does not stay up; its output is above.")
            if self._stop.is_set():
                raise StoppedEarlyError("Stopped before everything was ready.")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _ready(self) -> bool:
        # The gateway's response is that of the API. The git service and the service of calls have their own.
        if not await _is_ready_at(self._plan.configured.host, self._plan.port):
            return False
        behind = ("LONGSHORE_GIT_PORT", "LONGSHORE_CALLS_PORT")
        return all([await _is_ready_at("127.0.0.1", int(self._environment[port])) for port in behind])

    async def _stop_all(self) -> None:
        timeout = self._plan.configured.shutdown_seconds + EXIT_MARGIN_SECONDS
        behind = [child for child in self._children if child.name in ("api", "calls", "git")]
        redis = [child for child in self._children if child.name == "redis"]
        front = [child for child in self._children if child not in behind and child not in redis]
        # Requests of the gateway need API, calls and git until they end, jobs need git, and everything needs Redis.
        for group in (front, behind, redis):
            await asyncio.gather(*(child.stop(seconds=timeout) for child in group))
        self._print("stopped")

    def _print(self, text: str) -> None:
        self._output.print_line("longshore", text)

    def _print_ready(self) -> None:
        key = str(self._plan.admin_key_file)
        if not self._plan.admin_key_file.exists():
            key = "not stored here; `longshore keys create --owner NAME --kind admin` makes one"
        for line in (
            f"Longshore is ready at {self._plan.url} (API documentation: {self._plan.url}/docs)",
            f"admin key: {key}",
            "logs: here (LONGSHORE_LOG_LEVEL, LONGSHORE_LOG_FORMAT); stop with Ctrl-C",
        ):
            self._print(line)


async def _is_ready_at(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host or None, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.close()


def _longshore(*arguments: str) -> list[str]:
    # -P: the current directory may have packages of the same names.
    return [sys.executable, "-P", "-m", "cli.main", *arguments]


def _environment(plan: Plan, redis_url: str) -> dict[str, str]:
    configured = plan.configured
    # The API listens on loopback behind the gateway, so it does not know the gateway's address.
    public = {} if is_loopback_host(configured.host) else {"LONGSHORE_PUBLIC_URL": plan.url}
    explicit = configured.model_fields_set
    api_port = configured.api_port if "api_port" in explicit else find_free_port()
    git_port = configured.git_port if "git_port" in explicit else find_free_port()
    calls_port = configured.calls_port if "calls_port" in explicit else find_free_port()
    return {
        **os.environ,
        **public,
        "LONGSHORE_DATA_DIR": str(plan.directory),
        "LONGSHORE_REDIS_URL": redis_url,
        "LONGSHORE_PORT": str(plan.port),
        "LONGSHORE_API_PORT": str(api_port),
        "LONGSHORE_GIT_PORT": str(git_port),
        "LONGSHORE_CALLS_PORT": str(calls_port),
        "LONGSHORE_API_URL": f"http://127.0.0.1:{api_port}",
        "LONGSHORE_GIT_URL": f"http://127.0.0.1:{git_port}",
        "LONGSHORE_CALLS_URL": f"http://127.0.0.1:{calls_port}",
        "LONGSHORE_LOG_FORMAT": "json" if plan.as_json else "console",
        "PYTHONUNBUFFERED": "1",
    }
