"""Callers get their responses although the worker that started the container is killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.models import InstanceState
from tests.rows import fresh
from tests.service.cli.running import kill, until
from tests.service.workers.serving.conftest import Served, image_of, job_of, newest, reconciled
from tests.service.workers.serving.gated_algorithm import (
    LOAD,
    SOURCE,
    caller_of,
    hasty_installation,
    in_call,
    loading,
    open_gate,
    worker,
)
from workers.serving.docker.container import list_containers

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("broker")]


@pytest.fixture
def sqlite_installation(tmp_path: Path, redis_url: str) -> Iterator[str]:
    with hasty_installation(tmp_path, redis_url) as name:
        yield name


@pytest.fixture(scope="module")
def image_id(docker_host: str, base_image: str) -> Iterator[str]:
    with image_of(docker_host, base_image, SOURCE, "held") as made:
        yield made


def test_in_the_middle_of_a_start_another_takes_over(served: Served, registry: PrivateRegistry, tmp_path: Path) -> None:
    served.pushed_to(registry)
    with caller_of(served) as caller:
        with worker(tmp_path, "first") as first:
            answer = caller.begin("go")
            instance, abandoned = loading(served.build)
            kill(first.pid)
            first.wait(30)
        assert "send it again" in caller.refused("go")
        assert set(list_containers()) == {instance.id}
        with worker(tmp_path, "second"):
            again, _ = loading(served.build, other_than=abandoned)
            assert again.id == instance.id
            open_gate(instance, LOAD)
            open_gate(instance, "go")
            assert answer.result(60)["result"] == "go"
            assert caller.call("go")["result"] == "go"
            assert fresh(instance).state == InstanceState.READY
            assert job_of(instance).losses == 1
            assert set(list_containers()) == {instance.id}


def test_in_the_middle_of_a_call_the_call_goes_on(served: Served, registry: PrivateRegistry, tmp_path: Path) -> None:
    served.pushed_to(registry)
    with caller_of(served) as caller:
        with worker(tmp_path, "first") as first:
            answer = caller.begin("go")
            instance, _ = loading(served.build)
            open_gate(instance, LOAD)
            until(lambda: fresh(instance).state == InstanceState.READY and in_call(instance), "the call has begun")
            kill(first.pid)
            first.wait(30)
        open_gate(instance, "go")
        assert answer.result(60)["result"] == "go"
        assert caller.call("go")["result"] == "go"
        assert reconciled(instance).state == InstanceState.READY
        assert newest(served.build).id == instance.id
