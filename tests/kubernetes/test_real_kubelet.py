"""Algorithms on real kubelets: pushed to a real registry, pulled by the nodes, called, replaced, refused and ended.

Beside KUBECONFIG, LONGSHORE_TEST_REGISTRY names a registry that the cluster's nodes and this machine's engine reach.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Instance, InstanceState, Registry
from shared.encryption import keyring
from shared.errors import ErrorClass
from shared.pulls.resolution import pin_pull
from shared.registries.access import repository_of
from shared.registries.credentials import CredentialsUpdate
from shared.registries.rows import change_registry
from shared.registry.credentials import Credentials
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.kubernetes.real import Caller, Reply, call, wait_until_gone
from tests.kubernetes.real_registry import NamedRegistry
from tests.rows import build_commit, change, fresh, make_registry, push
from tests.service.workers.serving.conftest import SOURCE, Served, image_of, job_of
from workers.jobs.executor import run_job
from workers.kubernetes.cluster import Cluster, name_of
from workers.pushes.push import PushWork
from workers.serving.backend import serving_backend
from workers.serving.kubernetes import backend as backend_module
from workers.serving.kubernetes.labels import pull_secret_name, version_name
from workers.serving.kubernetes.objects import ISOLATED_POLICY
from workers.serving.kubernetes.rollout import pods_of
from workers.serving.reconcile import reconcile, stop_all

WHICH = {"eval": "WHICH"}


@dataclass(frozen=True)
class Images:
    """Two images of one version, which return different letters."""

    docker_host: str
    a: str
    b: str


@dataclass
class OnCluster(Served):
    """A version whose images go to a real registry and run on a real cluster."""

    images: Images
    cluster: Cluster
    named_registry: NamedRegistry

    def pushed(self, image_id: str, path: str) -> Registry:
        """Push one of the images to a registry of this name."""
        change(self.build, image_id=image_id)
        registry = make_registry(f"{self.named_registry.url}/{path}", self.named_registry.credentials, name=path)
        assert run_job(push(self.build, registry).id, PushWork)
        return registry

    def ready(self) -> Instance:
        """Return the instance that calls need now, once it takes calls."""
        instance = self.started()
        assert instance.state == InstanceState.READY, (instance.state, instance.message)
        return instance

    def call(self, given: object) -> Reply:
        """Return the reply to a call from outside of the cluster."""
        return call(self.cluster, version_name(self.build.version_id), given)

    def evaluated(self, expression: str) -> object:
        """Return the value of an expression in the container."""
        return self.call({"eval": expression}).result

    def runs(self, instance: Instance) -> None:
        """Check that the version's only pod runs this image, by the digest that its kubelet pulled."""
        (pod,) = pods_of(self.cluster, instance.id)
        (status,) = pod.status.container_statuses or []
        assert pod.spec.containers[0].image == instance.image
        assert status.image_id.rpartition("@")[2] == instance.digest

    def takes(self, registry: Registry, credentials: Credentials) -> None:
        """Replace the registry's own credentials."""
        with database().writing() as session:
            row = session.merge(fresh(registry))
            change_registry(session, keyring(), row, {}, CredentialsUpdate(credentials))


@pytest.fixture(scope="module")
def images(
    named_registry: NamedRegistry,  # noqa: ARG001 - skips without one
    request: pytest.FixtureRequest,
) -> Iterator[Images]:
    engine, base = request.getfixturevalue("docker_host"), request.getfixturevalue("base_image")
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(image_of(engine, base, f"WHICH = {which!r}\n{SOURCE}", f"on-cluster-{which}"))
            for which in "ab"
        )
        yield Images(engine, a, b)


@pytest.fixture
def on_cluster(
    named_registry: NamedRegistry,
    real_cluster: Cluster,
    account_config: Path,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OnCluster]:
    """Longshore's workers with the rights of the service account in the manifests."""
    monkeypatch.setenv("DOCKER_HOST", images.docker_host)
    monkeypatch.setenv("KUBECONFIG", str(account_config))
    settings: dict[str, Any] = {
        "serving": "kubernetes",
        "kubernetes_namespace": real_cluster.namespace,
        "kubernetes_node_selector": "",
        "serving_memory_bytes": 128 << 20,
        "serving_tmp_bytes": 16 << 20,
        "serving_cpus": 0.25,
    }
    with longshore_environment(tmp_path, transport="engine", **settings):
        serving_backend.cache_clear()
        build = build_commit(make_algorithm())
        yield OnCluster(build, images, real_cluster, named_registry)
        stop_all()
    serving_backend.cache_clear()


def test_an_algorithm_is_pulled_with_a_secret_and_answers_hardened(on_cluster: OnCluster) -> None:
    on_cluster.isolated()
    registry = on_cluster.pushed(on_cluster.images.a, "production")
    instance = on_cluster.ready()
    assert on_cluster.call("hello").result == "hello"
    on_cluster.runs(instance)
    (pod,) = pods_of(on_cluster.cluster, instance.id)
    assert pod.spec.containers[0].image_pull_policy == "Always"
    assert [secret.name for secret in pod.spec.image_pull_secrets] == [pull_secret_name(registry.id)]
    status = str(on_cluster.evaluated("open('/proc/self/status').read()"))
    for line in (
        "Uid:\t65532\t65532\t65532\t65532",
        "Gid:\t65532\t65532\t65532\t65532",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ):
        assert line in status
    for path in ("/", "/opt", "/opt/algorithm", "/usr/bin", "/var/tmp"):
        assert on_cluster.evaluated(f"bool(os.statvfs({path!r}).f_flag & os.ST_RDONLY)") is True
    assert on_cluster.evaluated("open('/tmp/file', 'w').write('kept')") == 4
    assert on_cluster.evaluated("os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount')") is False
    policy = on_cluster.cluster.networking.read_namespaced_network_policy(ISOLATED_POLICY, on_cluster.cluster.namespace)
    assert policy.spec.policy_types == ["Egress"]
    assert not policy.spec.egress
    assert policy.spec.pod_selector.match_labels.items() <= pod.metadata.labels.items()


def test_calls_go_where_the_latest_good_push_went_and_back_with_a_pin(on_cluster: OnCluster) -> None:
    production = on_cluster.pushed(on_cluster.images.a, "production")
    first = on_cluster.ready()
    with Caller(lambda: on_cluster.call(WHICH)) as caller:
        caller.wait_for("a")

        sandbox = on_cluster.pushed(on_cluster.images.b, "sandbox")
        second = on_cluster.ready()
        assert (first.registry_id, second.registry_id) == (production.id, sandbox.id)
        assert second.digest != first.digest
        on_cluster.runs(second)
        assert on_cluster.call(WHICH).result == "b"
        caller.wait_for("b")

        with database().writing() as session:
            pin_pull(session, on_cluster.algorithm, on_cluster.version, production.id)
        third = on_cluster.ready()
        assert third.image == first.image
        on_cluster.runs(third)
        assert on_cluster.call(WHICH).result == "a"
        caller.wait_for("a")
        assert set(caller.end()) == {"a", "b"}  # and no call failed


def test_a_pod_that_was_removed_is_replaced_and_its_instance_lives_on(on_cluster: OnCluster) -> None:
    on_cluster.pushed(on_cluster.images.a, "production")
    instance, cluster = on_cluster.ready(), on_cluster.cluster
    with Caller(lambda: on_cluster.call(WHICH)) as caller:
        caller.wait_for("a")
        (pod,) = pods_of(cluster, instance.id)
        cluster.core.delete_namespaced_pod(name_of(pod), cluster.namespace)
        wait_until_gone(cluster, instance, name_of(pod))
        assert serving_backend().observe([instance])[instance.id].alive
        assert set(caller.end()) == {"a"}
    with Caller(lambda: on_cluster.call(WHICH)) as again:
        again.wait_for("a")
    on_cluster.runs(instance)


def test_a_password_that_is_refused_is_said_and_a_new_one_replaces_it(on_cluster: OnCluster) -> None:
    registry = on_cluster.pushed(on_cluster.images.a, "production")
    right = on_cluster.named_registry.credentials
    on_cluster.takes(registry, Credentials(right.username, "no-such-password"))
    refused = on_cluster.started()
    assert (refused.state, job_of(refused).error_class) == (InstanceState.FAILED, ErrorClass.AUTH), refused.message
    assert "credentials" in refused.message
    assert "no-such-password" not in refused.message
    wait_until_gone(on_cluster.cluster, refused)

    on_cluster.takes(registry, right)
    change(refused, ended_at=0)  # a recent failure is the answer to other calls too
    on_cluster.runs(on_cluster.ready())
    assert on_cluster.call(WHICH).result == "a"


def test_an_image_that_was_deleted_from_the_registry_does_not_run(on_cluster: OnCluster, tmp_path: Path) -> None:
    registry = on_cluster.pushed(on_cluster.images.a, "production")
    instance = on_cluster.ready()
    stop_all()
    on_cluster.named_registry.delete(f"{repository_of(registry, on_cluster.algorithm)}@{instance.digest}", tmp_path)
    again = on_cluster.started()
    assert (again.state, job_of(again).error_class) == (InstanceState.FAILED, ErrorClass.NOT_FOUND), again.message
    assert "Push the version there again" in again.message


def test_what_was_stopped_starts_again_with_the_next_call_and_what_is_gone_is_cleared(
    on_cluster: OnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster.isolated()
    on_cluster.pushed(on_cluster.images.a, "production")
    first, cluster = on_cluster.ready(), on_cluster.cluster
    stop_all()
    assert fresh(first).state == InstanceState.STOPPED
    wait_until_gone(cluster, first)
    assert on_cluster.call(WHICH).status == HTTPStatus.SERVICE_UNAVAILABLE
    second = on_cluster.ready()
    assert second.id != first.id
    assert on_cluster.call(WHICH).result == "a"
    assert list(serving_backend().observe([first, second])) == [second.id]

    change(on_cluster.algorithm, deleted_at=now_ms())
    stop_all()
    monkeypatch.setattr(backend_module, "ORPHAN_GRACE_SECONDS", -1)
    reconcile()
    left = [
        cluster.apps.list_namespaced_deployment(cluster.namespace).items,
        cluster.core.list_namespaced_service(cluster.namespace).items,
        cluster.core.list_namespaced_secret(cluster.namespace).items,
    ]
    assert left == [[], [], []]
