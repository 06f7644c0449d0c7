"""An algorithm that waits until a test opens a gate, with a real worker and a real caller."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from api.app import create_app
from api.dispatch import producer
from cli.runtime import migrate
from dev.services.processes import Child
from shared.db.engine import database
from shared.db.models import Build, Instance
from shared.instances.endpoints import endpoint_of
from tests.environment import longshore_environment
from tests.git_service import make_key
from tests.service.api.invocation import Api
from tests.service.cli.running import longshore, until
from tests.service.workers.serving.conftest import Served, newest
from tests.unit.workers.runner.running import PROTOCOL
from workers.docker.connection import engine
from workers.maintenance.sweep import sweep
from workers.serving.docker.container import SEALED_MODE, container_name, socket_directory
from workers.serving.health import read_health

LOAD = "load"
SOURCE = f"""{PROTOCOL}
import time

def wait_for(gate):
    while not os.path.exists("/run/longshore/" + gate):
        time.sleep(0.01)
    return gate

wait_for("{LOAD}")
serve(lambda request: wait_for(request["data"]))
"""
"""Loads once the gate `load` is open; a call names a gate, and returns once it is open."""
HASTE = {"lease_seconds": 3, "heartbeat_seconds": 1, "unavailable_delay_seconds": 0.2}


@contextmanager
def hasty_installation(directory: Path, redis_url: str) -> Iterator[str]:
    """An installation for worker processes, with short leases so that a killed worker is noticed soon."""
    with longshore_environment(directory, tables=False, redis_url=redis_url, **HASTE):
        migrate(database())
        yield "sqlite"
        producer().close()


def worker(directory: Path, name: str) -> AbstractContextManager[Child]:
    """Run a worker of the queue `serving` during the block."""
    log = directory / f"{name}.log"
    command = ("worker", "--queues", "serving", "--concurrency", "1")
    return longshore(*command, log=log, ready=lambda: "ready." in log.read_text(), variables={})


class Caller:
    """Calls one version through the API."""

    def __init__(self, served: Served, threads: ThreadPoolExecutor) -> None:
        self._api = Api(create_app(), make_key(served.algorithm.owner))
        self._path = f"/v1/algo/{served.algorithm.path}/{served.version.git_hash}"
        self._threads = threads

    def begin(self, gate: str) -> "Future[Any]":
        """Begin a call that returns once the gate is open."""
        return self._threads.submit(self.call, gate)

    def call(self, gate: str) -> Any:
        """Call, and return the response."""
        return self._api.post(f"{self._path}?timeout=30", gate)

    def refused(self, gate: str) -> str:
        """Return why a call with a very short timeout is refused."""
        return self._api.expect_refusal(503, 2015, "POST", f"{self._path}?timeout=0.3", gate)


@contextmanager
def caller_of(served: Served) -> Iterator[Caller]:
    """Yield a caller; wait for all its calls at the end."""
    with ThreadPoolExecutor(4) as threads:
        yield Caller(served, threads)


def swept_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, and sweep meanwhile as the beat would."""

    def look() -> object:
        sweep()
        return condition()

    until(look, what)


def open_gate(instance: Instance, gate: str) -> None:
    """Open a gate."""
    (socket_directory(instance.id) / gate).touch()


def loading(build: Build, *, other_than: str | None = None) -> tuple[Instance, str]:
    """Return the newest instance and its container once the algorithm loads; another container than `other_than`."""

    def loads() -> bool:
        made = container_of(newest(build))
        sealed = socket_directory(newest(build).id).stat().st_mode & 0o777 == SEALED_MODE
        return made is not None and made != other_than and sealed

    try:
        swept_until(lambda: _quietly(loads), "an algorithm loads")
    finally:
        instance = newest(build)
        print(f"instance {instance.id}: {instance.state} {instance.message}")  # pytest shows it with a failure
    return instance, str(container_of(instance))


def in_call(instance: Instance) -> bool:
    """Return whether the runner has a call in progress."""
    health = read_health(endpoint_of(instance.id))
    return health is not None and bool(health.calls)


def container_of(instance: Instance) -> str | None:
    """Return the id of the instance's container, if there is one."""
    try:
        return str(engine().inspect_container(container_name(instance.id))["Id"])
    except NotFound:
        return None


def _quietly(look: Callable[[], bool]) -> bool:
    """Return False if what the condition needs does not exist yet."""
    try:
        return look()
    except (AssertionError, FileNotFoundError):
        return False
