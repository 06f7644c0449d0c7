"""What the release before the standard names left in a cluster goes on: instances, their objects, cordoned nodes.

`objects_before_0008.json` has the objects exactly as that release sent them to the API. The literals are repeated here
on purpose: a renamed constant must not change what is read from running clusters.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient

from shared.cancellation import CancelToken
from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import Instance, InstanceState, Job, JobState, Refresh, Registry, Version
from shared.errors import ErrorClass, WorkError
from shared.refreshes import RefreshOptions, RestartKind
from shared.registry.credentials import Credentials
from shared.settings import Settings
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.kubernetes import kubelets
from tests.kubernetes.nodes.worker_nodes import is_as_before, is_cordoned, node_of, put_node, put_pod, reboot
from tests.kubernetes.simulated import Document, SimulatedApi
from tests.rows import build_commit, change, fresh, one_row
from workers import tasks
from workers.kubernetes.cluster import Cluster
from workers.nodes import refresh
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.serving import reconcile as reconcile_module
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.backend import KubernetesBackend
from workers.serving.kubernetes.objects import deployment_of, isolated_policy, service_of
from workers.serving.kubernetes.pulls import pull_secret
from workers.serving.reconcile import reconcile

OBJECTS: dict[str, Document] = json.loads(Path(__file__).with_name("objects_before_0008.json").read_text())
VERSION = "0b54e7a6-1f3c-4d55-9a3e-2f6c1f1a7e01"
REGISTRY = "5d0c2c55-0f5e-4c0b-8a7d-7f6f2c1b9d02"
INSTANCE = "c7a0f0b8-6a4e-4a0f-9f57-3b8f0d0a6e03"
START = "1764268800/4f9c7c0e-8f7a-4f0e-a1c7-1d2e3f405060"
DIGEST = "sha256:" + "5" * 64
NAME = f"longshore-{VERSION}"
CREDENTIALS = Credentials("reader", "open-sesame")


@pytest.fixture
def deployed(api: SimulatedApi) -> Document:
    """The objects of one running instance, with its pod and its endpoints."""
    plurals = {"service": "services", "secret": "secrets", "network_policy": "networkpolicies"}
    for kind, plural in plurals.items():
        api.put(plural, _in_namespace(OBJECTS[kind]))
    deployment = api.put("deployments", _in_namespace(OBJECTS["deployment"]))
    kubelets.runs(api, deployment)
    return deployment


def _in_namespace(document: Document) -> Document:
    result = copy.deepcopy(document)
    result["metadata"]["namespace"] = "algorithms"
    return result


def spec_of(digest: str = DIGEST, instance_id: str = INSTANCE) -> InstanceSpec:
    """The instance of those objects as its row gives it now; or another one of the same version."""
    instance = Instance(
        id=instance_id,
        owner="ann",
        algorithm_id="an-algorithm",
        version_id=VERSION,
        registry_id=REGISTRY,
        image=f"registry.example/ann/fit@{digest}",
        digest=digest,
        network="isolated",
    )
    registry = Registry(id=REGISTRY, registry_url="registry.example", name="production", plain_http=False)
    return InstanceSpec(instance, "ann/fit", "c0ffee", registry, CREDENTIALS)


def test_the_objects_of_an_instance_are_the_same_documents() -> None:
    spec = spec_of()
    document: Callable[[object], Any] = ApiClient().sanitize_for_serialization
    assert spec.registry is not None
    assert document(deployment_of(spec, Settings(), START)) == OBJECTS["deployment"]
    assert document(service_of(spec)) == OBJECTS["service"]
    assert document(pull_secret(spec.registry, CREDENTIALS, START)) == OBJECTS["secret"]
    assert document(isolated_policy()) == OBJECTS["network_policy"]


@pytest.mark.usefixtures("deployed")
def test_an_instance_is_observed_and_kept(
    api: SimulatedApi, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = spec_of().instance
    assert backend.observe([instance])[INSTANCE].alive
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    before = copy.deepcopy(api.objects)
    backend.remove_orphans([INSTANCE], {VERSION}.intersection)
    assert api.objects == before


@pytest.mark.usefixtures("deployed")
def test_an_instance_without_a_row_is_removed_with_its_objects(
    api: SimulatedApi, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    backend.remove_orphans([], {VERSION}.intersection)
    assert (replicas(api), api.all("secrets")) == (0, [])
    backend.remove_orphans([], set().intersection)
    assert [api.all(kind) for kind in ("deployments", "services", "pods")] == [[], [], []]


@pytest.mark.usefixtures("deployed")
def test_an_instance_is_restarted_and_stopped(api: SimulatedApi, backend: KubernetesBackend) -> None:
    instance = spec_of().instance
    assert backend.restart(instance)
    assert "kubectl.kubernetes.io/restartedAt" in deployment(api)["spec"]["template"]["metadata"]["annotations"]
    assert backend.observe([instance])[INSTANCE].alive
    backend.stop(instance)
    assert replicas(api) == 0
    assert backend.observe([instance]) == {}


@pytest.mark.usefixtures("deployed")
def test_another_image_replaces_the_instance_under_the_same_address(
    api: SimulatedApi, backend: KubernetesBackend
) -> None:
    spec = spec_of("sha256:" + "6" * 64, "d1a0f0b8-6a4e-4a0f-9f57-3b8f0d0a6e04")
    started = backend.start(spec, lambda _message: None, CancelToken())
    assert (started.endpoint, started.runtime_ref) == (f"http://{NAME}.algorithms.svc:8080", NAME)
    assert [one["metadata"]["name"] for one in api.all("deployments")] == [NAME]
    assert list(backend.observe([spec_of().instance, spec.instance])) == [spec.instance.id]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Path]:
    with longshore_environment(tmp_path / "data", serving="kubernetes", node_ready_seconds=1) as directory:
        yield directory


@pytest.mark.usefixtures("deployed", "installation")
def test_the_row_of_an_instance_goes_on_and_drains(
    api: SimulatedApi, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile_module, "serving_backend", lambda: backend)
    why: list[str | None] = [None, None, "Calls go to another image now."]
    monkeypatch.setattr(reconcile_module, "why_outdated", lambda _session, _instance: why.pop(0))
    change(one_row(Version, id=build_commit(make_algorithm()).version_id), id=VERSION)
    row = spec_of().instance
    row.job_id, row.state = "its-job", InstanceState.READY
    row.endpoint, row.runtime_ref = f"http://{NAME}.algorithms.svc:8080", NAME
    with database().writing() as session:
        session.add(row)
    for expected in (InstanceState.READY, InstanceState.READY, InstanceState.DRAINING):
        reconcile()
        assert (fresh(row).state, replicas(api)) == (expected, 1)
    change(row, draining_at=0)
    reconcile()
    assert (fresh(row).state, replicas(api)) == (InstanceState.STOPPED, 0)


def deployment(api: SimulatedApi) -> Document:
    return api.objects["deployments", "algorithms", NAME]


def replicas(api: SimulatedApi) -> int:
    return int(deployment(api)["spec"]["replicas"])


BEFORE_RESTART = '{"mark":"JOB","by":"5e0f1f7c-5a0e-4a52-8d43-0a1b2c3d4e05","boot_id":"boot-1"}'
RESTARTED = '{"mark":"JOB","by":"5e0f1f7c-5a0e-4a52-8d43-0a1b2c3d4e05","boot_id":"boot-1","restarted_at":1764268900}'
CORDONED_BEFORE = (
    '{"mark":"JOB","by":"5e0f1f7c-5a0e-4a52-8d43-0a1b2c3d4e05","boot_id":"boot-1","cordoned_elsewhere":true}'
)


@pytest.fixture
def job(
    api: SimulatedApi,
    cluster: Cluster,
    installation: Path,  # noqa: ARG001 - comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Job:
    """A refresh of two nodes whose worker was lost while it drained the second one."""
    monkeypatch.setattr(refresh, "node_pool", lambda: KubernetesNodePool(Settings(node_ready_seconds=1), cluster))
    put_node(api, "n1")
    with database().writing() as session:
        options = RefreshOptions(restart=RestartKind.COMMAND)
        job = enqueue_refresh(session, options, owner="admin").job
    progress = [
        {"name": "n1", "state": "done", "step": "It is ready, and pulls afresh.", "instance_id": None, "plan": None,
         "started_at": 1764268700000, "finished_at": 1764268800000},
        {"name": "n2", "state": "waiting", "step": "Its worker was lost.", "instance_id": None, "plan": None,
         "started_at": 1764268800000, "finished_at": None},
    ]  # fmt: skip
    change(one_row(Refresh, job_id=job.id), progress=progress)
    return job


@pytest.fixture
def restarts(api: SimulatedApi, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nodes whose restart was requested."""
    requested: list[str] = []

    def restart(name: str) -> None:
        requested.append(name)
        reboot(api, name)

    monkeypatch.setattr(refresh, "restart_hook", lambda *_arguments: restart)
    return requested


def put_cordoned(api: SimulatedApi, job: Job, annotation: str) -> None:
    put_node(api, "n2", cordoned=True, mark=annotation.replace("JOB", job.id))


def test_a_refresh_goes_on_with_the_node_that_it_had_cordoned(api: SimulatedApi, job: Job, restarts: list[str]) -> None:
    put_cordoned(api, job, BEFORE_RESTART)
    put_pod(api, "n2", "web-1")
    tasks.refresh(job.id)
    assert (fresh(job).state, restarts, api.all("pods")) == (JobState.SUCCEEDED, ["n2"], [])
    assert is_as_before(api, "n1")
    assert is_as_before(api, "n2")
    assert [step["state"] for step in one_row(Refresh, job_id=job.id).progress] == ["done", "done"]


def test_a_node_whose_restart_was_requested_is_not_restarted_again(
    api: SimulatedApi, job: Job, restarts: list[str]
) -> None:
    put_cordoned(api, job, RESTARTED)
    put_pod(api, "n2", "came-back-after-the-restart")
    reboot(api, "n2")
    tasks.refresh(job.id)
    assert (fresh(job).state, restarts, len(api.all("pods"))) == (JobState.SUCCEEDED, [], 1)
    assert is_as_before(api, "n2")


def test_a_node_that_an_operator_had_cordoned_stays_cordoned(api: SimulatedApi, job: Job, restarts: list[str]) -> None:
    put_cordoned(api, job, CORDONED_BEFORE)
    tasks.refresh(job.id)
    assert (fresh(job).state, restarts, is_cordoned(api, "n2")) == (JobState.SUCCEEDED, ["n2"], True)
    assert node_of(api, "n2")["metadata"]["annotations"] == {}


def test_nodes_of_a_job_that_has_ended_are_uncordoned(api: SimulatedApi, job: Job) -> None:
    put_cordoned(api, job, BEFORE_RESTART)
    change(job, state=JobState.CANCELLED)
    tasks.uncordon()
    assert is_as_before(api, "n2")
    assert one_row(Refresh, job_id=job.id).uncordoned_at is not None


def test_the_annotation_is_written_as_workers_of_the_release_before_read_it(
    api: SimulatedApi, cluster: Cluster
) -> None:
    put_node(api, "n1", cordoned=True)
    written: list[dict[str, Any]] = []

    def restart(_name: str) -> None:
        written.append(json.loads(node_of(api, "n1")["metadata"]["annotations"]["longshore.io/refresh"]))
        raise WorkError(ErrorClass.INVALID, "It was not restarted.")

    pool = KubernetesNodePool(Settings(), cluster)
    with pytest.raises(WorkError):
        pool.refresh("n1", "a-job", restart, lambda _message: None, CancelToken())
    (state,) = written
    assert list(state) == ["mark", "by", "boot_id", "cordoned_elsewhere", "restarted_at"]
    assert (state["mark"], state["boot_id"], state["cordoned_elsewhere"]) == ("a-job", "boot-1", True)
