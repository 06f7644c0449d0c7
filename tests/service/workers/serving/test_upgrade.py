"""A container that the release before the standard names started goes on: observed, called, drained and stopped.

The literals are repeated here on purpose: a renamed constant must not change what is read from a running engine.
"""

from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.models import Instance, InstanceState
from shared.settings import settings
from tests.rows import change, fresh
from tests.service.cli.running import until
from tests.service.workers.serving.conftest import Served, call, reconciled
from workers.docker.connection import engine
from workers.serving.docker.container import list_containers
from workers.serving.reconcile import stop_all

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]

LABEL = "longshore.serving"


@pytest.fixture(params=[True, False], ids=["labelled", "named"])
def running(served: Served, registry: PrivateRegistry, request: pytest.FixtureRequest) -> Instance:
    """An instance whose container was made as that release did; the name alone must be enough to find it."""
    served.pushed_to(registry)
    instance = served.ensure_instance()
    directory = settings().resolved_serving_dir / instance.id
    labels = {
        LABEL: instance.id,
        "longshore.serving-directory": str(settings().resolved_serving_dir),
        "longshore.owner": instance.owner,
        "longshore.algorithm": served.algorithm.path,
        "longshore.version": served.version.git_hash,
    }
    if not request.param:
        del labels[LABEL]
    run_container(instance, served.build.image_id or "", directory, labels)
    change(
        instance,
        state=InstanceState.READY,
        endpoint=f"unix:{instance.id}",
        runtime_ref=f"longshore-serve-{instance.id}",
    )
    return fresh(instance)


def run_container(instance: Instance, image: str, directory: Path, labels: dict[str, str]) -> None:
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir()
    directory.chmod(0o777)
    name = f"longshore-serve-{instance.id}"
    engine().create_container(
        image,
        name=name,
        user="65532:65532",
        environment={
            "LONGSHORE_PORT": "0",
            "LONGSHORE_SOCKET": "/run/longshore/socket",
            "LONGSHORE_SOCKET_SEALED": "1",
            "LONGSHORE_MAX_REQUEST_BYTES": "10485760",
        },
        labels=labels,
        host_config=engine().create_host_config(
            network_mode="host",
            read_only=True,
            binds=[f"{directory}:/run/longshore"],
            tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=16777216"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        ),
    )
    engine().start(name)
    until((directory / "socket").exists, "the runner has made its socket")
    directory.chmod(0o555)


def test_it_is_observed_called_drained_and_stopped(served: Served, running: Instance) -> None:
    assert list(list_containers()) == [running.id]
    assert reconciled(running).state == InstanceState.READY
    assert served.ensure_instance().id == running.id
    assert call(running, "still here")["result"] == "still here"
    change(served.algorithm, settings={"network_access": "isolated"})
    assert reconciled(running).state == InstanceState.DRAINING
    assert call(running, "until it has drained")["result"] == "until it has drained"
    assert reconciled(running).state == InstanceState.STOPPED
    assert list_containers() == {}
    assert not (settings().resolved_serving_dir / running.id).exists()


def test_it_is_stopped_with_the_last_worker(running: Instance) -> None:
    stop_all()
    assert (fresh(running).state, list_containers()) == (InstanceState.STOPPED, {})


def test_without_a_row_it_is_removed(running: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    change(running, state=InstanceState.STOPPED)
    assert reconciled(running).state == InstanceState.STOPPED
    assert list(list_containers()) == [running.id]  # it was created just now
    monkeypatch.setattr("workers.serving.docker.backend.ORPHAN_GRACE_SECONDS", -60)
    reconciled(running)
    assert list_containers() == {}


def test_a_container_that_was_killed_is_noticed(running: Instance) -> None:
    engine().kill(f"longshore-serve-{running.id}")
    engine().wait(f"longshore-serve-{running.id}")
    stopped = reconciled(running)
    assert (stopped.state, "was killed" in stopped.message) == (InstanceState.STOPPED, True)
