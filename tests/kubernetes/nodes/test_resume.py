"""A node takes pods again however its refresh ends, and another worker resumes from any step."""

import copy
import itertools
from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.settings import Settings
from tests.kubernetes.nodes.reports import JOB, Reports, names, refresh, state_on
from tests.kubernetes.nodes.worker_nodes import (
    REFRESH,
    end_slowly,
    is_as_before,
    is_cordoned,
    node_of,
    put_budget,
    put_node,
    put_pod,
    reboot,
)
from tests.kubernetes.simulated import ApiError, Document, SimulatedApi
from workers.kubernetes.cluster import Cluster
from workers.nodes.kubernetes import nodes
from workers.nodes.kubernetes.cordon import Cordon
from workers.nodes.kubernetes.node_pool import KubernetesNodePool


def stop_after(api: SimulatedApi, requests: int) -> CancelToken:
    stop, seen = CancelToken(), itertools.count(1)

    def count(_api: SimulatedApi) -> None:
        if next(seen) == requests:
            stop.cancel("cancelled")

    api.on_answer = count
    return stop


def test_a_stop_is_heeded_after_each_request_and_leaves_the_node_as_it_was(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    stopped = 0
    for requests in itertools.count(1):
        put_node(api, "n1")
        put_pod(api, "n1", "web-1")
        put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
        reports = Reports(Waits_for_evictions=lambda: put_budget(api, "web", allowed=1, matchLabels={"app": "app"}))
        try:
            refresh(pool, reports, lambda name: reboot(api, name), stop_after(api, requests))
        except WorkCancelledError:
            stopped += 1
        assert is_as_before(api, "n1")
        if "Node n1 is ready." in reports.messages:
            break
    assert stopped > 10


def test_whatever_ends_it_leaves_the_node_as_it_was(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    with pytest.raises(ZeroDivisionError):
        refresh(pool, Reports(Node_n1_is_empty=lambda: 1 // 0))
    assert is_as_before(api, "n1")


def states_of_a_refresh(api: SimulatedApi, pool: KubernetesNodePool) -> list[dict[tuple[str, str, str], Document]]:
    """Return the cluster's objects after each request of a refresh: a worker may be killed after any of them."""
    states = []
    api.on_answer = lambda api: states.append(copy.deepcopy(api.objects))
    refresh(pool, restart=lambda name: reboot(api, name))
    api.on_answer = lambda _api: None
    return states


@pytest.mark.parametrize("cordoned", [False, True])
def test_another_worker_goes_on_after_each_request(
    api: SimulatedApi, cluster: Cluster, pool: KubernetesNodePool, cordoned: bool
) -> None:
    put_node(api, "n1", cordoned=cordoned)
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "web-2")
    restarts: list[str] = []
    for state in states_of_a_refresh(api, pool):
        api.objects = copy.deepcopy(state)
        before = node_of(api, "n1")
        marked = REFRESH in before["metadata"]["annotations"]
        was_asked, in_boot = marked and "restarted_at" in state_on(api), before["status"]["nodeInfo"]["bootID"]

        def restart(name: str) -> None:
            restarts.append(name)
            reboot(api, name)

        restarts.clear()
        if was_asked and in_boot == "boot-1":
            # Killed before the hook was called, or after: that is unknown, so it is not called again immediately.
            with pytest.raises(WorkError, match="has not restarted within 1 s"):
                refresh(KubernetesNodePool(Settings(node_ready_seconds=1), cluster), restart=restart)
            assert restarts == []
            was_asked = False
        refresh(KubernetesNodePool(Settings(), cluster), restart=restart)
        assert restarts == ([] if was_asked else ["n1"])
        assert names(api) == []
        assert is_cordoned(api, "n1") == cordoned
        assert node_of(api, "n1")["metadata"]["annotations"] == {}


def test_a_node_that_goes_meanwhile_keeps_no_other_from_being_released(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    for name in ("n1", "n2"):
        put_node(api, name, cordoned=True, mark='{"mark":"job-1","by":"x","boot_id":"boot-1"}')
    api.on_answer = lambda api: api.remove("nodes", "n1")
    pool.uncordon(JOB)
    assert is_as_before(api, "n2")


@pytest.mark.parametrize("cordoned", [False, True])
def test_whatever_became_of_a_worker_its_nodes_are_released(
    api: SimulatedApi, cluster: Cluster, pool: KubernetesNodePool, cordoned: bool
) -> None:
    put_node(api, "n1", cordoned=cordoned)
    put_pod(api, "n1", "web-1")
    put_node(api, "n2", cordoned=True, mark='{"mark":"job-2","by":"x","boot_id":"boot-1"}')
    released = []
    for state in states_of_a_refresh(api, pool):
        api.objects = copy.deepcopy(state)
        marked = REFRESH in node_of(api, "n1")["metadata"]["annotations"]
        node_of(api, "n1")["metadata"]["labels"] = {}
        assert KubernetesNodePool(Settings(), cluster).uncordon(JOB) == (["n1"] if marked else [])
        released.append(marked)
        assert is_cordoned(api, "n1") == cordoned
        assert node_of(api, "n1")["metadata"]["annotations"] == {}
        assert is_cordoned(api, "n2")
    assert set(released) == {True, False}


def test_a_node_that_was_uncordoned_meanwhile_takes_pods_at_the_end(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    before = '{"mark":"job-1","by":"x","boot_id":"boot-1","cordoned_elsewhere":true}'
    put_node(api, "n1", mark=before)
    refresh(pool)
    assert is_as_before(api, "n1")


def test_who_was_taken_over_leaves_the_node_to_who_goes_on(
    api: SimulatedApi, cluster: Cluster, pool: KubernetesNodePool
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    with pytest.raises(WorkError, match="taken over") as failed:
        refresh(pool, Reports(Waits_for_pods_to_end=Cordon(cluster, "n1", JOB).acquire))
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert is_cordoned(api, "n1")
    api.remove("pods", "web-1")
    refresh(pool)
    assert is_as_before(api, "n1")


def test_what_was_cordoned_while_the_cluster_went_away_is_released_later(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    put_node(api, "n1")

    def goes_away() -> None:
        api.refuse["nodes"] = ApiError(500, "etcd is away")

    with pytest.raises(WorkError, match="etcd is away") as failed:
        refresh(pool, Reports(Node_n1_is_ready=goes_away))
    assert failed.value.error_class == ErrorClass.UNAVAILABLE
    assert is_cordoned(api, "n1")
    api.refuse.clear()
    assert pool.uncordon(JOB) == ["n1"]
    assert is_as_before(api, "n1")


@pytest.fixture
def own_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make this process a worker in the pod with the returned name."""
    namespace = tmp_path / "namespace"
    namespace.write_text("work\n")
    monkeypatch.setattr(nodes, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("HOSTNAME", "a-worker")
    return "a-worker"


def test_the_worker_itself_goes_last_and_the_next_one_goes_on(
    api: SimulatedApi, pool: KubernetesNodePool, own_pod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_node(api, "n2")
    put_pod(api, "n1", own_pod)
    put_pod(api, "n1", "web-1")
    evicted, stop = list[str](), CancelToken()

    def evict(api: SimulatedApi, pod: Document) -> None:
        name = pod["metadata"]["name"]
        evicted.append(name)
        api.remove("pods", name)
        if name == own_pod:
            stop.cancel("the worker is shut down")

    api.on_eviction = evict
    reports = Reports()
    with pytest.raises(WorkCancelledError):
        refresh(pool, reports, stop=stop)
    assert evicted == ["web-1", own_pod]
    assert "Waits for pods to end: work/web-1." in reports.messages
    assert "Evicts the pod of this worker: another worker resumes." in reports.messages
    assert is_as_before(api, "n1")
    monkeypatch.setenv("HOSTNAME", "b-worker")
    refresh(pool)
    assert is_as_before(api, "n1")


def test_a_worker_with_no_other_place_does_not_evict_itself(
    api: SimulatedApi, pool: KubernetesNodePool, own_pod: str
) -> None:
    put_node(api, "n1")
    put_node(api, "n2", cordoned=True)
    put_pod(api, "n1", own_pod)
    with pytest.raises(WorkError, match="run Longshore's workers elsewhere") as refused:
        refresh(pool)
    assert refused.value.error_class == ErrorClass.INVALID
    assert names(api) == [own_pod]
    assert is_as_before(api, "n1")
