"""Start the complete Longshore under test: each service and process can be stopped and started on its own."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dev.services.base_image import ensure_python_base
from dev.services.engine import engine_sockets, private_engine, running_engine
from dev.services.mounts import memory_disk
from dev.services.postgres import PrivatePostgres, private_postgres
from dev.services.processes import Child, ServiceFailedError, free_port, port_answers, running, say
from dev.services.redis import PrivateRedis, private_redis
from dev.services.registry import PrivateRegistry, private_registry, token_registry
from dev.services.switch import Switch
from shared.db.engine import Database
from shared.encryption import new_key
from tests.chaos.api import Api
from tests.chaos.plan import LEASE_SECONDS
from tests.chaos.proxy import FaultyProxy, faulty_proxy

LONGSHORE = (sys.executable, "-P", "-m", "cli.main")
START_TIMEOUT_SECONDS = 90
GRACE_SECONDS = 30
BUILD_BYTES = 1024**3
BUILD_SECONDS = 60
"""A build that leaves processes behind lasts so long, and others wait for the one worker of builds."""
DISK_MEGABYTES = 64
SHORT_INTERVALS = {
    "LONGSHORE_LEASE_SECONDS": str(LEASE_SECONDS),
    "LONGSHORE_HEARTBEAT_SECONDS": "1.5",
    "LONGSHORE_RETRY_DELAYS": "0.5,1,2,4,8",
    "LONGSHORE_UNAVAILABLE_DELAY_SECONDS": "1",
    "LONGSHORE_PROBE_DELAYS": "1,2,3",
    "LONGSHORE_SWEEP_SECONDS": "1",
    "LONGSHORE_MAX_LOSSES": "50",
    "LONGSHORE_SHUTDOWN_SECONDS": "3",
    "LONGSHORE_SERVING_IDLE_SECONDS": "10",
}
"""Settings that make retries, leases and sweeps faster."""

WORKERS = {
    "pushes-1": ("pushes", 2),
    "pushes-2": ("pushes", 2),
    "builds": ("builds", 1),
    "serving": ("serving", 2),
    "maintenance": ("maintenance", 1),
}


@dataclass
class Process:
    """One of Longshore's processes."""

    name: str
    queue: str
    """The queue of a worker; empty for other processes."""
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    port: int | None = None
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables for its next start only."""
    switch: Switch[Child] = field(init=False)

    def __post_init__(self) -> None:
        self.switch = Switch(self._begin)

    @property
    def child(self) -> Child:
        """The process that runs now or ran last."""
        return self.switch.service

    def wait(self) -> None:
        """Wait until the process is ready."""
        self.child.wait_until(self._is_ready, seconds=START_TIMEOUT_SECONDS)

    def _begin(self) -> AbstractContextManager[Child]:
        return running(
            f"longshore {self.name}",
            [*LONGSHORE, *self.command],
            log=self.log,
            ready=lambda: True,
            grace=GRACE_SECONDS,
            environment={**self.environment, **self.variables},
        )

    def _is_ready(self) -> bool:
        if self.port is not None:
            return port_answers(self.port)
        return self.command[0] != "worker" or self.child.logged(" ready.")


@dataclass
class System:
    """The services and processes of the run."""

    directory: Path
    scratch: Path
    """The temporary directory of the workers, a small disk where mounting is permitted."""
    can_fill_disk: bool
    postgres: Switch[PrivatePostgres]
    redis: Switch[PrivateRedis]
    passwords: Switch[PrivateRegistry]
    tokens: PrivateRegistry
    engine: Switch[str] | None
    """None where the engine belongs to the machine and cannot be restarted."""
    docker_host: str
    proxies: tuple[FaultyProxy, FaultyProxy]
    """In front of the registry with passwords and of the one with tokens."""
    processes: dict[str, Process]
    database: Database
    url: str
    """The address of the gateway."""
    admin: Api

    @property
    def logs(self) -> Path:
        """The directory of the logs of all Longshore processes."""
        return self.directory / "logs"

    def worker_names(self, queue: str) -> list[str]:
        """Return the names of the workers of a queue."""
        return [name for name, (queues, _) in WORKERS.items() if queues == queue]


@contextmanager
def system(directory: Path, seed: int) -> Iterator[System]:
    """Run all services and processes during the block.

    Raises:
        ServiceFailedError: a service cannot be started; the message has the cause.
    """
    with ExitStack() as stack:
        scratch, can_fill_disk = _scratch(stack, directory / "scratch")
        engine, docker_host = _engine(stack, directory / "engine")
        base_image = ensure_python_base(docker_host)
        postgres_port, redis_port, registry_port = free_port(), free_port(), free_port()
        postgres = stack.enter_context(Switch(lambda: private_postgres(directory / "postgres", port=postgres_port)))
        redis = stack.enter_context(Switch(lambda: private_redis(directory / "redis", port=redis_port)))
        users = {"pusher": f"pw-good-{secrets.token_hex(12)}"}
        passwords = stack.enter_context(
            Switch(lambda: private_registry(directory / "passwords", users=users, port=registry_port))
        )
        accounts = {"writer": (f"pw-token-{secrets.token_hex(12)}", {"pull", "push", "delete"})}
        tokens = stack.enter_context(token_registry(directory / "tokens", accounts))
        proxies = (
            stack.enter_context(faulty_proxy(passwords.service.host, seed)),
            stack.enter_context(faulty_proxy(tokens.host, seed + 1)),
        )
        url = postgres.service.create_database("chaos")
        environment = _environment(directory, scratch, url, redis.service.url(), docker_host, base_image)
        admin_key = _migrate(directory, environment)
        address = f"http://127.0.0.1:{environment['LONGSHORE_PORT']}"
        made = System(
            directory=directory,
            scratch=scratch,
            can_fill_disk=can_fill_disk,
            postgres=postgres,
            redis=redis,
            passwords=passwords,
            tokens=tokens,
            engine=engine,
            docker_host=docker_host,
            proxies=proxies,
            processes=_processes(directory, environment),
            database=Database(url),
            url=address,
            admin=Api(address, admin_key),
        )
        stack.callback(made.database.close)
        say("starting Longshore")
        for process in made.processes.values():
            stack.enter_context(process.switch)
        for process in made.processes.values():
            process.wait()
        yield made


def _scratch(stack: ExitStack, directory: Path) -> tuple[Path, bool]:
    try:
        return stack.enter_context(memory_disk(directory, megabytes=DISK_MEGABYTES)), True
    except ServiceFailedError as error:
        say(f"the disk cannot be filled in this run: {error}")
        return directory, False


def _engine(stack: ExitStack, directory: Path) -> tuple[Switch[str] | None, str]:
    if os.geteuid() != 0:
        named = running_engine()
        if named is None:
            raise ServiceFailedError("no Docker engine answers, and a private one needs root")
        say("the engine is not restarted in this run, because a private engine needs root")
        return None, named
    sockets = engine_sockets()
    stack.callback(shutil.rmtree, sockets, ignore_errors=True)
    engine = stack.enter_context(Switch(lambda: private_engine(directory, sockets=sockets)))
    return engine, engine.service


def _environment(
    directory: Path, scratch: Path, database_url: str, redis_url: str, docker_host: str, base_image: str
) -> dict[str, str]:
    port, api_port, git_port, calls_port = free_port(), free_port(), free_port(), free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LONGSHORE_", "DOCKER_"))}
    return {
        **inherited,
        **SHORT_INTERVALS,
        "DOCKER_HOST": docker_host,
        "TMPDIR": str(scratch),
        "LONGSHORE_DATA_DIR": str(directory / "data"),
        "LONGSHORE_DATABASE_URL": database_url,
        "LONGSHORE_REDIS_URL": redis_url,
        "LONGSHORE_SECRET_KEYS": new_key(),
        "LONGSHORE_PORT": str(port),
        "LONGSHORE_API_PORT": str(api_port),
        "LONGSHORE_GIT_PORT": str(git_port),
        "LONGSHORE_CALLS_PORT": str(calls_port),
        "LONGSHORE_API_URL": f"http://127.0.0.1:{api_port}",
        "LONGSHORE_GIT_URL": f"http://127.0.0.1:{git_port}",
        "LONGSHORE_CALLS_URL": f"http://127.0.0.1:{calls_port}",
        "LONGSHORE_API_WORKERS": "2",
        "LONGSHORE_BASE_IMAGE": base_image,
        "LONGSHORE_BUILD_NETWORK": "host",
        "LONGSHORE_BUILD_SECONDS": str(BUILD_SECONDS),
        "LONGSHORE_BUILD_MAX_BYTES": str(BUILD_BYTES),
        "LONGSHORE_SERVING_NETWORK": "host",  # a private engine has no other
        "LONGSHORE_PULL_FALLBACK": "store",  # the attacker's image is in no registry
        "LONGSHORE_BUILD_ON_PUSH": "false",
        "LONGSHORE_KIT_REQUIREMENT": "",
        "LONGSHORE_LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
    }


def _migrate(directory: Path, environment: dict[str, str]) -> str:
    """Create the tables and the first admin key; return the key."""
    (directory / "data").mkdir(mode=0o700)
    key = directory / "admin-key"
    done = subprocess.run(
        [*LONGSHORE, "migrate", "--admin-key", str(key)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServiceFailedError(f"longshore migrate failed:\n{done.stderr}")
    return key.read_text().strip()


def _processes(directory: Path, environment: dict[str, str]) -> dict[str, Process]:
    logs = directory / "logs"
    logs.mkdir()
    named = {
        "api": ("api",),
        "git": ("git",),
        "calls": ("calls",),
        "gateway": ("gateway",),
        **{
            name: ("worker", "--queues", queues, "--concurrency", str(concurrency))
            for name, (queues, concurrency) in WORKERS.items()
        },
        "beat-1": ("beat",),
        "beat-2": ("beat",),
    }
    ports = {
        "api": int(environment["LONGSHORE_API_PORT"]),
        "git": int(environment["LONGSHORE_GIT_PORT"]),
        "calls": int(environment["LONGSHORE_CALLS_PORT"]),
        "gateway": int(environment["LONGSHORE_PORT"]),
    }
    return {
        name: Process(
            name, WORKERS.get(name, ("", 0))[0], command, logs / f"{name}.log", environment, port=ports.get(name)
        )
        for name, command in named.items()
    }
