"""The Docker engine is killed while an instance runs, and started again with and without live-restore.

Containers and calls go on without the engine. An engine that starts again ends the containers that it finds,
unless live-restore is set (dockerd's daemon.json).
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.services.base_image import ensure_python_base
from dev.services.engine import engine_sockets, private_engine
from dev.services.registry import PrivateRegistry
from dev.services.workdir import services_directory
from shared.db.models import InstanceState
from tests.processes import has_ended
from tests.rows import fresh
from tests.service.cli.running import until
from tests.service.workers.serving.conftest import Served, image_of, reconciled
from tests.service.workers.serving.gated_algorithm import (
    LOAD,
    SOURCE,
    caller_of,
    container_of,
    hasty_installation,
    in_call,
    loading,
    open_gate,
    swept_until,
    worker,
)
from workers.serving.docker.container import list_containers

pytestmark = [
    pytest.mark.engine,
    pytest.mark.usefixtures("broker"),
    pytest.mark.skipif(os.geteuid() != 0, reason="an engine of one's own needs root"),
]


class Engine:
    """An engine that can be killed and started again, with the same files and address."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._directory = stack.enter_context(services_directory())
        self._sockets = engine_sockets()
        stack.callback(shutil.rmtree, self._sockets, ignore_errors=True)
        self.address = self.start()

    def start(self, *, live_restore: bool = False) -> str:
        """Start the engine; return its address."""
        engine = private_engine(self._directory / "engine", sockets=self._sockets, live_restore=live_restore)
        return self._stack.enter_context(engine)

    def kill(self) -> None:
        """Kill the engine, but no container. containerd is its child process and ends with it."""
        notes = [self._sockets / "pid", self._sockets / "exec" / "containerd" / "containerd.pid"]
        pids = [int(note.read_text()) for note in notes]
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: all(map(has_ended, pids)), "the engine is gone")
        for note in notes:
            note.unlink()  # whoever is dead and not collected yet would be taken for alive


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with ExitStack() as stack:
        yield Engine(stack)


@pytest.fixture(scope="module")
def docker_host(engine: Engine) -> str:
    return engine.address


@pytest.fixture(scope="module")
def image_id(docker_host: str) -> Iterator[str]:
    with image_of(docker_host, ensure_python_base(docker_host), SOURCE, "held") as made:
        yield made


@pytest.fixture
def sqlite_installation(tmp_path: Path, redis_url: str) -> Iterator[str]:
    with hasty_installation(tmp_path, redis_url) as name:
        yield name


def test_calls_go_on_without_it_and_what_it_ends_when_it_comes_back_is_replaced(
    served: Served, registry: PrivateRegistry, engine: Engine, tmp_path: Path
) -> None:
    served.pushed_to(registry)
    with worker(tmp_path, "worker"), caller_of(served) as caller:
        begun = caller.begin("first")
        instance, container = loading(served.build)
        open_gate(instance, LOAD)
        until(lambda: in_call(instance), "the call has begun")
        engine.kill()
        open_gate(instance, "first")
        assert begun.result(30)["result"] == "first"
        assert caller.call("first")["result"] == "first"
        assert reconciled(instance).state == InstanceState.READY

        begun = caller.begin("second")
        until(lambda: in_call(instance), "the second call has begun")
        engine.start(live_restore=True)
        open_gate(instance, "second")
        assert begun.result(30)["result"] == "second"
        assert reconciled(instance).state == InstanceState.READY
        assert container_of(instance) == container

        cut_off = caller.begin("never")
        until(lambda: in_call(instance), "the third call has begun")
        engine.kill()
        engine.start()
        # The engine's grace period is as long as the runner's, so the message may come from either.
        assert "during the call" in cut_off.result(30)["error"]["message"]
        following = caller.begin("next")
        again, _ = loading(served.build, other_than=container)
        open_gate(again, LOAD)
        open_gate(again, "next")
        assert following.result(30)["result"] == "next"
        ended = fresh(instance)
        assert ended.state == InstanceState.STOPPED
        # The call that was cut off records it, or a reconciliation that sees the container before.
        assert "has ended" in ended.message or "container was killed" in ended.message, ended.message
        assert [one for one, (runs, _made) in list_containers().items() if runs] == [again.id]


def test_a_start_that_it_was_killed_in_is_begun_anew(
    served: Served, registry: PrivateRegistry, engine: Engine, tmp_path: Path
) -> None:
    served.pushed_to(registry)
    with worker(tmp_path, "worker"), caller_of(served) as caller:
        begun = caller.begin("first")
        instance, abandoned = loading(served.build)
        engine.kill()
        swept_until(lambda: "does not answer" in fresh(instance).message, "it is said that the engine is away")
        assert "does not answer" in caller.refused("first")
        engine.start()
        again, _ = loading(served.build, other_than=abandoned)
        assert again.id == instance.id
        open_gate(again, LOAD)
        open_gate(again, "first")
        assert begun.result(30)["result"] == "first"
