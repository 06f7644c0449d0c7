"""Instances on a real engine: started, called, confined, replaced and ended."""

import json
import os

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.clock import now_ms
from shared.db.models import Instance, InstanceState, JobState
from shared.errors import ErrorClass
from shared.instances.endpoints import connect, endpoint_of
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.rows import change, fresh, lose_lease, try_claim
from tests.service.workers.serving.conftest import Served, call, evaluated, job_of, newest, reconciled
from workers.docker.connection import engine
from workers.jobs.executor import run_job
from workers.serving.docker.container import container_name, list_containers, socket_directory
from workers.serving.reconcile import stop_all
from workers.serving.start import ServeWork

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]


def test_what_was_pushed_is_pulled_by_digest_and_takes_calls(served: Served, registry: PrivateRegistry) -> None:
    target = served.pushed_to(registry)
    instance = served.started()
    assert (instance.state, instance.registry_id) == (InstanceState.READY, target.id)
    assert job_of(instance).state == JobState.SUCCEEDED
    answer = call(instance, "hello")
    assert answer["result"] == "hello"
    described = engine().inspect_container(container_name(instance.id))
    assert described["Config"]["Image"] == instance.image
    assert instance.digest in instance.image
    assert served.ensure_instance().id == instance.id  # a second call uses the same


def test_it_cannot_do_what_it_need_not(served: Served, registry: PrivateRegistry) -> None:
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    assert evaluated(instance, "os.listdir('/sys/class/net')")["result"] == ["lo"]
    assert evaluated(instance, "[os.getuid(), os.getgid()]")["result"] == [65532, 65532]
    status = evaluated(instance, "open('/proc/self/status').read()")["result"]
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    for path in ("/file", "/opt/algorithm/file", "/run/longshore/file"):
        assert not evaluated(instance, f"os.access(os.path.dirname({path!r}), os.W_OK)")["result"]
    assert evaluated(instance, "open('/tmp/file', 'w').write('kept')")["result"] == 4
    seen = evaluated(instance, "os.listdir('/run/longshore') + [os.path.exists('/var/run/docker.sock')]")["result"]
    assert seen == ["socket", False]


def test_with_network_it_has_the_one_of_the_settings(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.started()
    assert engine().inspect_container(container_name(instance.id))["HostConfig"]["NetworkMode"] == "host"


@pytest.mark.parametrize(
    "attack",
    [
        "open('/tmp/full', 'wb').write(b'0' * (64 << 20))",
        "len(b'0' * (1 << 30))",
        "[subprocess.Popen(['sleep', '60']) for _ in range(500)] and None",
        "os.unlink('/run/longshore/socket')",
        "os.symlink('/var/run/docker.sock', '/run/longshore/socket2')",
    ],
    ids=["disk", "memory", "processes", "socket", "link"],
)
def test_what_it_breaks_it_breaks_alone(served: Served, registry: PrivateRegistry, attack: str) -> None:
    limits = engine().info()
    if not (limits["MemoryLimit"] and limits["PidsLimit"]) and attack[0] in "[l":
        pytest.skip("this engine says that it cannot limit memory or processes")
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    assert "error" in json.loads(attacked(instance, attack))
    instance = reconciled(instance)
    if instance.state != InstanceState.READY:
        instance = served.started()
    assert call(instance, "again")["result"] == "again"
    assert os.listdir(socket_directory(instance.id)) == ["socket"]


def attacked(instance: Instance, attack: str) -> str:
    """Return the response to an attack; if the container ended, that is an error too."""
    try:
        return json.dumps(evaluated(instance, attack, timeout=20))
    except OSError as error:
        return json.dumps({"error": str(error)})


def test_a_link_in_the_sockets_place_leads_nowhere(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.started()
    directory = socket_directory(instance.id)
    (directory / "socket").rename(directory / "real")
    (directory / "socket").symlink_to(directory / "real")
    with pytest.raises(OSError, match="non-socket"):
        connect(endpoint_of(instance.id), settings().resolved_serving_dir, seconds=1)


def test_a_registry_that_refuses_is_a_sentence_for_the_caller(served: Served, registry: PrivateRegistry) -> None:
    target = served.pushed_to(registry)
    change(target, credentials=None)
    instance = served.started()
    assert instance.state == InstanceState.FAILED
    assert job_of(instance).error_class == ErrorClass.AUTH
    assert "password" in instance.message
    assert list_containers() == {}


def test_an_algorithm_that_does_not_load_answers_with_how_it_failed(
    served: Served, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pushed_to(registry)
    monkeypatch.setenv("LONGSHORE_SERVING_START_SECONDS", "0.001")
    settings.cache_clear()
    instance = served.started()
    assert instance.state == InstanceState.FAILED
    assert "LONGSHORE_SERVING_START_SECONDS" in instance.message
    assert list_containers() == {}
    assert not socket_directory(instance.id).exists()


def test_another_image_takes_over_and_the_old_one_drains(
    served: Served, registry: PrivateRegistry, second_registry: PrivateRegistry
) -> None:
    served.pushed_to(registry)
    old = served.started()
    sandbox = served.pushed_to(second_registry)
    new = served.started()
    assert (new.state, new.registry_id) == (InstanceState.READY, sandbox.id)
    assert new.id != old.id
    assert call(old, "still here")["result"] == "still here"
    old = reconciled(old)
    assert old.state == InstanceState.DRAINING
    assert reconciled(old).state == InstanceState.STOPPED
    assert set(list_containers()) == {new.id}
    assert reconciled(new).state == InstanceState.READY


def test_the_idle_end_and_the_next_call_starts_afresh(
    served: Served, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pushed_to(registry)
    instance = served.started()
    assert reconciled(instance).state == InstanceState.READY
    monkeypatch.setenv("LONGSHORE_SERVING_IDLE_SECONDS", "0.001")
    settings.cache_clear()
    assert reconciled(instance).state == InstanceState.DRAINING
    instance = reconciled(instance)
    assert (instance.state, list_containers()) == (InstanceState.STOPPED, {})
    assert not socket_directory(instance.id).exists()
    assert served.started().state == InstanceState.READY


def test_a_container_that_was_killed_is_told_of_and_replaced(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.started()
    engine().kill(container_name(instance.id))
    engine().wait(container_name(instance.id))
    instance = reconciled(instance)
    assert instance.state == InstanceState.STOPPED
    assert "was killed" in instance.message
    assert call(served.started(), 1)["result"] == 1


def test_a_start_whose_worker_was_lost_is_taken_over(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.ensure_instance()
    assert try_claim(job_of(instance)) is not None
    lose_lease(job_of(instance))
    assert run_job(instance.job_id, ServeWork)
    assert fresh(instance).state == InstanceState.READY
    assert job_of(instance).claim == 2


def test_what_no_row_knows_is_removed_and_nothing_of_others(
    served: Served, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pushed_to(registry)
    instance = served.started()
    change(instance, state=InstanceState.STOPPED, ended_at=now_ms())
    monkeypatch.setattr("workers.serving.docker.backend.ORPHAN_GRACE_SECONDS", -60)
    home = settings().data_dir
    monkeypatch.setenv("LONGSHORE_SERVING_DIR", str(home / "elsewhere"))
    settings.cache_clear()
    reconciled(instance)
    monkeypatch.delenv("LONGSHORE_SERVING_DIR")
    settings.cache_clear()
    assert set(list_containers()) == {instance.id}
    reconciled(instance)
    assert list_containers() == {}


def test_as_many_run_as_may_and_the_idlest_makes_room(
    served: Served, registry: PrivateRegistry, second_registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pushed_to(registry)
    first = served.started()
    monkeypatch.setenv("LONGSHORE_SERVING_MAX_INSTANCES", "1")
    settings.cache_clear()
    served.pushed_to(second_registry)
    second = served.started()
    assert second.state == InstanceState.PENDING
    assert "LONGSHORE_SERVING_MAX_INSTANCES" in second.message
    assert fresh(first).state == InstanceState.DRAINING
    assert reconciled(first).state == InstanceState.STOPPED
    change(job_of(second), next_attempt_at=now_ms())
    assert run_job(second.job_id, ServeWork)
    assert newest(served.build).state == InstanceState.READY


def test_nothing_is_left_when_longshore_ends(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance = served.started()
    stop_all()
    assert (fresh(instance).state, list_containers()) == (InstanceState.STOPPED, {})


def test_the_registrys_own_credentials_are_used_and_kept_out_of_the_container(
    served: Served, registry: PrivateRegistry
) -> None:
    served.pushed_to(registry)
    instance = served.started()
    described = json.dumps(engine().inspect_container(container_name(instance.id)))
    assert Credentials("pusher", registry.users["pusher"]).password not in described
