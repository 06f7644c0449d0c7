"""Images that Longshore did not build: from a caller's own Dockerfile, or pushed to the registry by others."""

from collections.abc import Callable

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.clock import now_ms
from shared.db.models import InstanceState, JobState
from shared.instances.endpoints import connect, endpoint_of
from shared.settings import settings
from tests.rows import change, fresh
from tests.service.workers.serving.conftest import Served, entry_point, evaluated, job_of
from workers.docker.connection import engine
from workers.jobs.executor import run_job
from workers.serving.docker.container import container_name, list_containers, socket_directory
from workers.serving.reconcile import reconcile
from workers.serving.start import ServeWork

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]

ANSWERS_NONSENSE = """
import socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/longshore/socket")
listener.listen()
body = b'{"calls": 0, "idle_seconds": 1' + b"0" * 400 + b"}"
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + body)
    connection.close()
"""


def test_a_volume_of_the_image_is_memory_with_a_limit(
    served: Served, registry: PrivateRegistry, of: Callable[..., str]
) -> None:
    of("VOLUME /data")
    served.pushed_to(registry)
    instance = served.started()
    mounts = engine().inspect_container(container_name(instance.id))["Mounts"]
    assert {mount["Type"] for mount in mounts} == {"bind", "tmpfs"}
    filled = evaluated(instance, "open('/data/full', 'wb').write(b'0' * (64 << 20))")
    assert "error" in filled, "neither more than the limit nor a process without memory"


def test_labels_of_an_image_remove_nothing(of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The containers of a Dockerfile build have labels of the image too."""
    home = settings().resolved_serving_dir
    image_id = of(f'LABEL longshore.serving-directory="{home}" longshore.serving="../precious"')
    precious = home.parent / "precious"
    precious.mkdir()
    monkeypatch.setattr("workers.serving.docker.backend.ORPHAN_GRACE_SECONDS", -60)
    other = engine().create_container(image_id)["Id"]
    try:
        assert list_containers() == {}
        reconcile()
        assert precious.is_dir()
        assert engine().inspect_container(other)["Id"] == other
    finally:
        engine().remove_container(other, force=True)


@pytest.mark.parametrize("fill", ["open('/run/longshore/full', 'w')", "os.mkdir('/run/longshore/directory')"])
def test_what_fills_the_sockets_directory_is_ended(
    served: Served, registry: PrivateRegistry, of: Callable[..., str], fill: str
) -> None:
    of(entry_point(f"import os, time; {fill}; time.sleep(600)"))
    served.pushed_to(registry)
    instance = served.started()
    assert instance.state == InstanceState.FAILED
    assert "entry point" in instance.message
    assert list_containers() == {}
    assert not socket_directory(instance.id).exists()


def test_what_answers_with_nonsense_keeps_nobody_from_being_tended(
    served: Served, registry: PrivateRegistry, of: Callable[..., str]
) -> None:
    of(entry_point(ANSWERS_NONSENSE))
    served.pushed_to(registry)
    instance = served.started()
    assert instance.state == InstanceState.READY
    connect(endpoint_of(instance.id), settings().resolved_serving_dir, seconds=1).close()
    reconcile()
    assert fresh(instance).state == InstanceState.READY


def test_what_nobody_wants_any_more_is_not_started(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.ensure_instance()
    change(served.algorithm, deleted_at=now_ms())
    job = job_of(instance)
    run_job(job.id, ServeWork)
    assert fresh(job).state == JobState.SUCCEEDED
    assert (fresh(instance).state, list_containers()) == (InstanceState.STOPPED, {})
    assert "deleted" in fresh(instance).message
