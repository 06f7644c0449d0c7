"""A worker is ready without a Docker engine where its queues need none."""

import pytest

from shared.db.engine import database
from shared.settings import settings
from tests.rows import change, make_registry
from workers.health import WorkerHealth

pytestmark = pytest.mark.usefixtures("installation", "broker", "no_engine")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


def problem_of(*queues: str) -> str:
    return WorkerHealth(database(), "worker", queues).problem() or "none"


@pytest.mark.parametrize("queue", ["pushes", "nodes", "maintenance"])
def test_a_worker_on_this_queue_needs_no_engine(queue: str) -> None:
    make_registry()
    assert problem_of(queue) == "none"


def test_builds_need_an_engine() -> None:
    assert "The Docker engine at " in problem_of("builds", "pushes")


def test_pushes_need_an_engine_where_it_is_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_TRANSPORT", "engine")
    settings.cache_clear()
    assert "The Docker engine at " in problem_of("pushes")


def test_pushes_need_an_engine_while_a_registry_uses_it() -> None:
    registry = make_registry(transport="engine")
    assert "The Docker engine at " in problem_of("pushes")
    change(registry, deleted_at=1)
    assert problem_of("pushes") == "none"


def test_instances_need_an_engine_on_one_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The Docker engine at " in problem_of("serving")
    monkeypatch.setenv("LONGSHORE_SERVING", "kubernetes")
    settings.cache_clear()
    assert problem_of("serving") == "none"
