"""Nodes that pull afresh: what is done to them step by step, what holds it up, and how each step is gone on from."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import ErrorClass, Stopped, WorkError
from shared.settings import Settings
from shared.stopping import StopSignal
from tests.kubernetes.simulated import Asked, Document, Refusal, SimulatedApi
from tests.kubernetes.worker_nodes import (
    REFRESH,
    end_slowly,
    is_as_before,
    is_cordoned,
    lose,
    node_of,
    put_budget,
    put_node,
    put_pod,
    reboot,
)
from workers.refreshing.fleet import Node, Plan, Restart
from workers.refreshing.kubernetes import emptying, nodes, pods
from workers.refreshing.kubernetes.fleet import KubernetesFleet
from workers.refreshing.kubernetes.hold import Hold
from workers.serving.kubernetes.cluster import Cluster

JOB = "job-1"
Say = Callable[[str], None]


class Story:
    """What was said, without repetitions; and what happens when something is said for the first time."""

    def __init__(self, **events: Callable[[], object]) -> None:
        self.said: list[str] = []
        self._events = {name.replace("_", " "): event for name, event in events.items()}

    def __call__(self, text: str) -> None:
        if text in self.said:
            return
        self.said.append(text)
        for beginning in [name for name in self._events if text.startswith(name)]:
            self._events.pop(beginning)()


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(emptying, "REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)


@pytest.fixture
def fleet(cluster: Cluster) -> KubernetesFleet:
    return KubernetesFleet(Settings(), cluster)


@pytest.fixture
def hasty_fleet(cluster: Cluster) -> KubernetesFleet:
    """Waits for nothing longer than a second."""
    return KubernetesFleet(Settings(node_ready_seconds=1, node_empty_seconds=1), cluster)


def refresh(
    fleet: KubernetesFleet, say: Say | None = None, restart: Restart | None = None, stop: StopSignal | None = None
) -> None:
    fleet.refresh("n1", JOB, restart, say or Story(), stop or StopSignal())


def names(api: SimulatedApi) -> list[str]:
    return [pod["metadata"]["name"] for pod in api.all("pods")]


def mark_on(api: SimulatedApi) -> Document:
    return dict(json.loads(node_of(api, "n1")["metadata"]["annotations"][REFRESH]))


def test_the_nodes_of_algorithms_by_name(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n2", cordoned=True)
    put_node(api, "n1")
    put_node(api, "database", labels={})
    lose(api, "n1", "the disk is full")
    assert fleet.nodes() == [Node("n1", ready=False, cordoned=False), Node("n2", ready=True, cordoned=True)]


def test_a_node_is_cordoned_emptied_restarted_and_takes_pods_again(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n2", "elsewhere")
    seen: list[Document] = []

    def restart(name: str) -> None:
        assert (name, is_cordoned(api, name), names(api)) == ("n1", True, ["elsewhere"])
        seen.append(mark_on(api))
        reboot(api, name)

    story = Story()
    refresh(fleet, story, restart)
    assert is_as_before(api, "n1")
    assert [(mark["mark"], mark["boot_id"], mark["restarted_at"] > 0) for mark in seen] == [(JOB, "boot-1", True)]
    assert story.said == [
        "Node n1 is cordoned.",
        "Waits for pods to end: work/web-1.",
        "Node n1 is empty.",
        "Has node n1 restarted.",
        "Node n1 is ready.",
    ]


def test_the_cordon_and_whose_it_is_are_one_step(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    refresh(fleet)
    first, last = api.bodies
    assert (first["spec"], list(first["metadata"]["annotations"])) == ({"unschedulable": True}, [REFRESH])
    assert (last["spec"], last["metadata"]["annotations"]) == ({"unschedulable": None}, {REFRESH: None})
    assert all(body["metadata"]["resourceVersion"] for body in api.bodies)


def test_a_node_that_the_kubelet_writes_to_meanwhile_is_cordoned_all_the_same(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    put_node(api, "n1")

    def kubelet_writes(api: SimulatedApi) -> None:
        api.on_answer = lambda _api: None
        api.put("nodes", node_of(api, "n1"))

    api.on_answer = kubelet_writes
    refresh(fleet)
    assert len(api.bodies) == 3  # the first of which was refused
    assert is_as_before(api, "n1")


def test_what_stays_on_a_node(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "log-collector", owner="DaemonSet")
    put_pod(api, "n1", "kube-proxy-n1", owner="Node", annotations={"kubernetes.io/config.mirror": "hash"})
    put_pod(api, "n1", "done", owner=None, phase="Succeeded")
    put_pod(api, "n1", "failed", owner="Job", phase="Failed")
    put_pod(api, "n1", "with-emptydir")["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    assert fleet.plan("n1") == Plan(evicted=("work/with-emptydir",), stay=("work/kube-proxy-n1", "work/log-collector"))
    refresh(fleet)
    assert names(api) == ["done", "failed", "kube-proxy-n1", "log-collector"]
    assert is_as_before(api, "n1")


def test_a_pod_that_nothing_brings_back_is_named_and_no_pod_is_evicted(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "a-web")
    put_pod(api, "n1", "bare", owner=None)
    assert fleet.plan("n1") == Plan(evicted=("work/a-web",), stay=(), refused_for=("work/bare",))
    with pytest.raises(WorkError, match="nothing would bring back: work/bare") as refused:
        refresh(fleet)
    assert refused.value.error_class == ErrorClass.INVALID
    assert names(api) == ["a-web", "bare"]
    assert is_as_before(api, "n1")


def test_a_pod_is_waited_for_until_it_is_gone(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    story = Story(Waits_for_pods_to_end=lambda: api.remove("pods", "web-1"))
    refresh(fleet, story)
    assert story.said[1:] == ["Waits for pods to end: work/web-1.", "Node n1 is empty.", "Node n1 is ready."]


def test_a_pod_that_does_not_end_is_named(api: SimulatedApi, hasty_fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    with pytest.raises(WorkError, match=r"not empty within 1 s .*Waits for pods to end: work/web-1") as failed:
        refresh(hasty_fleet)
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert is_as_before(api, "n1")


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_pod_that_is_gone_or_another_by_now_is_no_failure(
    api: SimulatedApi, fleet: KubernetesFleet, change: str
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "db-0", owner="StatefulSet")

    def meanwhile(api: SimulatedApi) -> None:
        if Asked("", "pods", "list", namespaced=False) in api.asked:
            api.on_answer = lambda _api: None
            api.remove("pods", "db-0")
            if change == "replaced":
                put_pod(api, "n2", "db-0", owner="StatefulSet")

    api.on_answer = meanwhile
    refresh(fleet)
    assert names(api) == (["db-0"] if change == "replaced" else [])
    assert is_as_before(api, "n1")


def test_a_budget_is_waited_for_until_it_allows_the_eviction(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "other-1", app="other")
    put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
    assert fleet.plan("n1").waits_for == ("work/web",)

    def opens() -> None:
        assert names(api) == ["web-1"]
        put_budget(api, "web", allowed=1, matchLabels={"app": "app"})

    story = Story(Waits_for_evictions=opens)
    refresh(fleet, story)
    assert story.said[1].startswith(
        "Waits for evictions to be allowed: work/web-1 (The disruption budget web needs 1 healthy pods and has 1 "
        "currently)."
    )
    assert names(api) == []
    assert is_as_before(api, "n1")


def test_a_budget_that_never_allows_it_is_named_and_the_node_takes_pods_again(
    api: SimulatedApi, hasty_fleet: KubernetesFleet
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
    with pytest.raises(WorkError, match=r"work/web-1 \(The disruption budget web needs") as failed:
        refresh(hasty_fleet)
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert "LONGSHORE_NODE_EMPTY_SECONDS" in failed.value.message
    assert names(api) == ["web-1"]
    assert is_as_before(api, "n1")


def test_the_time_that_the_api_names_is_waited_for(
    api: SimulatedApi, fleet: KubernetesFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    stop, pauses = StopSignal(), list[float]()
    monkeypatch.setattr(stop, "pause", pauses.append)
    api.refuse["pods"] = Refusal(429, "The disruption budget web is still being processed", retry_after=10)
    refresh(fleet, Story(Waits_for_evictions=api.refuse.clear), stop=stop)
    assert pauses == [10, 0.01]


def test_no_longer_than_the_limit_whatever_the_api_names(
    api: SimulatedApi, hasty_fleet: KubernetesFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    stop, pauses = StopSignal(), list[float]()
    monkeypatch.setattr(stop, "pause", pauses.append)
    api.refuse["pods"] = Refusal(429, "slow down", retry_after=3600)
    with pytest.raises(WorkError, match="slow down"):
        refresh(hasty_fleet, stop=stop)
    assert max(pauses) <= 1


def test_a_pod_of_two_budgets_is_said_to_be_so(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    api.refuse["pods"] = Refusal(500, message)
    with pytest.raises(WorkError, match="work/web-1 cannot be evicted: This pod has more than one") as failed:
        refresh(fleet)
    assert failed.value.error_class == ErrorClass.INVALID


def test_a_pod_of_a_namespace_that_ends_is_waited_for(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.refuse["pods"] = Refusal(403, "is being terminated", cause=("NamespaceTerminating", "work is being terminated"))
    refresh(fleet, Story(Waits_for_pods_to_end=lambda: api.remove("pods", "web-1")))
    assert is_as_before(api, "n1")


SELECTORS = [
    ({}, True),
    ({"matchLabels": {"app": "app"}}, True),
    ({"matchLabels": {"app": "other"}}, False),
    ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["app", "b"]}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["app"]}]}, False),
    ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
    ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
]


@pytest.mark.parametrize(("selector", "is_meant"), SELECTORS)
def test_the_budgets_that_a_plan_names(
    api: SimulatedApi, fleet: KubernetesFleet, selector: Document, is_meant: bool
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "pending", app="pending", phase="Pending")
    put_budget(api, "web", allowed=0, **selector)
    put_budget(api, "open", allowed=1)
    put_budget(api, "pending", allowed=0, matchLabels={"app": "pending"})
    put_budget(api, "elsewhere", allowed=0, namespace="elsewhere")
    assert fleet.plan("n1").waits_for == (("work/web",) if is_meant else ())


def test_a_node_that_somebody_else_cordoned_is_refreshed_and_stays_cordoned(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    put_node(api, "n1", cordoned=True)
    put_pod(api, "n1", "web-1")
    seen: list[Document] = []
    story = Story(Node_n1_was_cordoned_by_somebody_else=lambda: seen.append(mark_on(api)))
    refresh(fleet, story)
    assert seen[0]["cordoned_elsewhere"] is True
    assert names(api) == []
    assert node_of(api, "n1")["spec"] == {"unschedulable": True}
    assert node_of(api, "n1")["metadata"]["annotations"] == {}


@pytest.mark.parametrize(
    ("mark", "error_class", "match"),
    [
        ('{"mark":"job-2","by":"x","boot_id":"boot-1"}', ErrorClass.TRANSIENT, "refreshed by the job job-2"),
        ("mine", ErrorClass.INVALID, "kubectl annotate node n1 longshore.io/refresh-"),
    ],
)
def test_a_node_with_another_mark_is_left_alone(
    api: SimulatedApi, fleet: KubernetesFleet, mark: str, error_class: ErrorClass, match: str
) -> None:
    put_node(api, "n1", cordoned=True, mark=mark)
    put_pod(api, "n1", "web-1")
    with pytest.raises(WorkError, match=match) as refused:
        refresh(fleet)
    assert refused.value.error_class == error_class
    assert (is_cordoned(api, "n1"), names(api), api.bodies) == (True, ["web-1"], [])
    assert fleet.release(JOB) == []


def test_a_node_that_is_gone_is_said(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    for ask in (lambda: refresh(fleet), lambda: fleet.plan("n1")):
        with pytest.raises(WorkError, match="no node n1 any more") as failed:
            ask()
        assert failed.value.error_class == ErrorClass.NOT_FOUND
    put_node(api, "n1")
    with pytest.raises(WorkError, match="no node n1 any more"):
        refresh(fleet, Story(Node_n1_is_cordoned=lambda: api.remove("nodes", "n1")))


def test_a_hook_that_fails_ends_it_and_the_node_takes_pods_again(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    asked: list[str] = []

    def restart(name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            raise WorkError(ErrorClass.TRANSIENT, "the hook ended with exit code 3")
        reboot(api, name)

    with pytest.raises(WorkError, match="exit code 3"):
        refresh(fleet, restart=restart)
    assert is_as_before(api, "n1")
    refresh(fleet, restart=restart)
    assert asked == ["n1", "n1"]


@pytest.mark.parametrize("restart", [None, lambda _name: None])
def test_a_node_that_does_not_become_ready_is_said_with_its_own_words(
    api: SimulatedApi, hasty_fleet: KubernetesFleet, restart: Restart | None
) -> None:
    put_node(api, "n1")
    lose(api, "n1", "container runtime is down")
    with pytest.raises(WorkError, match=r"Ready is False \(container runtime is down\)") as failed:
        refresh(hasty_fleet, restart=restart)
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert ("has not restarted" in failed.value.message) == (restart is not None)
    assert is_as_before(api, "n1")


def test_a_restarted_node_is_waited_for_until_its_kubelet_is_ready(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")

    def comes_back() -> None:
        reboot(api, "n1")
        lose(api, "n1", "no network yet")

    story = Story(Waits_until_node_n1_has_restarted=comes_back, Waits_until_node_n1_is_ready=lambda: reboot(api, "n1"))
    refresh(fleet, story, lambda _name: None)
    assert story.said[-3:] == [
        "Waits until node n1 has restarted.",
        "Waits until node n1 is ready.",
        "Node n1 is ready.",
    ]


def stop_after(api: SimulatedApi, requests: int) -> StopSignal:
    stop, seen = StopSignal(), itertools.count(1)

    def count(_api: SimulatedApi) -> None:
        if next(seen) == requests:
            stop.ask("cancelled")

    api.on_answer = count
    return stop


def test_a_stop_is_heeded_after_each_request_and_leaves_the_node_as_it_was(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    stopped = 0
    for requests in itertools.count(1):
        put_node(api, "n1")
        put_pod(api, "n1", "web-1")
        put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
        story = Story(Waits_for_evictions=lambda: put_budget(api, "web", allowed=1, matchLabels={"app": "app"}))
        try:
            refresh(fleet, story, lambda name: reboot(api, name), stop_after(api, requests))
        except Stopped:
            stopped += 1
        assert is_as_before(api, "n1")
        if "Node n1 is ready." in story.said:
            break
    assert stopped > 10


def test_whatever_ends_it_leaves_the_node_as_it_was(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    put_node(api, "n1")
    with pytest.raises(ZeroDivisionError):
        refresh(fleet, Story(Node_n1_is_empty=lambda: 1 // 0))
    assert is_as_before(api, "n1")


def states_of_a_refresh(api: SimulatedApi, fleet: KubernetesFleet) -> list[dict[tuple[str, str, str], Document]]:
    """What the cluster looked like after each request, which a worker may have been killed after."""
    states = []
    api.on_answer = lambda api: states.append(copy.deepcopy(api.objects))
    refresh(fleet, restart=lambda name: reboot(api, name))
    api.on_answer = lambda _api: None
    return states


@pytest.mark.parametrize("cordoned", [False, True])
def test_another_worker_goes_on_after_each_request(
    api: SimulatedApi, cluster: Cluster, fleet: KubernetesFleet, cordoned: bool
) -> None:
    put_node(api, "n1", cordoned=cordoned)
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "web-2")
    restarts: list[str] = []
    for state in states_of_a_refresh(api, fleet):
        api.objects = copy.deepcopy(state)
        before = node_of(api, "n1")
        marked = REFRESH in before["metadata"]["annotations"]
        was_asked, in_boot = marked and "restarted_at" in mark_on(api), before["status"]["nodeInfo"]["bootID"]

        def restart(name: str) -> None:
            restarts.append(name)
            reboot(api, name)

        restarts.clear()
        another = KubernetesFleet(Settings(node_ready_seconds=1), cluster)
        if was_asked and in_boot == "boot-1":
            # Killed as the hook was to be called: nobody can know whether it was. It is not called twice at once.
            with pytest.raises(WorkError, match="has not restarted within 1 s"):
                refresh(another, restart=restart)
            assert restarts == []
            was_asked = False
        refresh(another, restart=restart)
        assert restarts == ([] if was_asked else ["n1"])
        assert names(api) == []
        assert is_cordoned(api, "n1") == cordoned
        assert node_of(api, "n1")["metadata"]["annotations"] == {}


def test_a_node_that_goes_meanwhile_keeps_no_other_from_being_released(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    for name in ("n1", "n2"):
        put_node(api, name, cordoned=True, mark='{"mark":"job-1","by":"x","boot_id":"boot-1"}')
    api.on_answer = lambda api: api.remove("nodes", "n1")
    fleet.release(JOB)
    assert is_as_before(api, "n2")


@pytest.mark.parametrize("cordoned", [False, True])
def test_whatever_became_of_a_worker_its_nodes_are_released(
    api: SimulatedApi, cluster: Cluster, fleet: KubernetesFleet, cordoned: bool
) -> None:
    put_node(api, "n1", cordoned=cordoned)
    put_pod(api, "n1", "web-1")
    put_node(api, "n2", cordoned=True, mark='{"mark":"job-2","by":"x","boot_id":"boot-1"}')
    released = []
    for state in states_of_a_refresh(api, fleet):
        api.objects = copy.deepcopy(state)
        marked = REFRESH in node_of(api, "n1")["metadata"]["annotations"]
        node_of(api, "n1")["metadata"]["labels"] = {}
        assert KubernetesFleet(Settings(), cluster).release(JOB) == (["n1"] if marked else [])
        released.append(marked)
        assert is_cordoned(api, "n1") == cordoned
        assert node_of(api, "n1")["metadata"]["annotations"] == {}
        assert is_cordoned(api, "n2")
    assert set(released) == {True, False}


def test_a_node_that_was_uncordoned_meanwhile_takes_pods_at_the_end(api: SimulatedApi, fleet: KubernetesFleet) -> None:
    before = '{"mark":"job-1","by":"x","boot_id":"boot-1","cordoned_elsewhere":true}'
    put_node(api, "n1", mark=before)
    refresh(fleet)
    assert is_as_before(api, "n1")


def test_who_was_taken_over_leaves_the_node_to_who_goes_on(
    api: SimulatedApi, cluster: Cluster, fleet: KubernetesFleet
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    with pytest.raises(WorkError, match="taken over") as failed:
        refresh(fleet, Story(Waits_for_pods_to_end=Hold(cluster, "n1", JOB).take))
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert is_cordoned(api, "n1")
    api.remove("pods", "web-1")
    refresh(fleet)
    assert is_as_before(api, "n1")


def test_what_was_cordoned_while_the_cluster_went_away_is_released_later(
    api: SimulatedApi, fleet: KubernetesFleet
) -> None:
    put_node(api, "n1")

    def goes_away() -> None:
        api.refuse["nodes"] = Refusal(500, "etcd is away")

    with pytest.raises(WorkError, match="etcd is away") as failed:
        refresh(fleet, Story(Node_n1_is_ready=goes_away))
    assert failed.value.error_class == ErrorClass.UNAVAILABLE
    assert is_cordoned(api, "n1")
    api.refuse.clear()
    assert fleet.release(JOB) == ["n1"]
    assert is_as_before(api, "n1")


@pytest.fixture
def own_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """This process is a worker in a pod of this name."""
    namespace = tmp_path / "namespace"
    namespace.write_text("work\n")
    monkeypatch.setattr(pods, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("HOSTNAME", "a-worker")
    return "a-worker"


def test_the_worker_itself_goes_last_and_the_next_one_goes_on(
    api: SimulatedApi, fleet: KubernetesFleet, own_pod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_node(api, "n2")
    put_pod(api, "n1", own_pod)
    put_pod(api, "n1", "web-1")
    evicted, stop = list[str](), StopSignal()

    def evict(api: SimulatedApi, pod: Document) -> None:
        name = pod["metadata"]["name"]
        evicted.append(name)
        api.remove("pods", name)
        if name == own_pod:
            stop.ask("the worker is shut down")

    api.on_eviction = evict
    story = Story()
    with pytest.raises(Stopped):
        refresh(fleet, story, stop=stop)
    assert evicted == ["web-1", own_pod]
    assert "Waits for pods to end: work/web-1." in story.said
    assert "Evicts the pod of the worker that does this: another worker goes on." in story.said
    assert is_as_before(api, "n1")
    monkeypatch.setenv("HOSTNAME", "b-worker")
    refresh(fleet)
    assert is_as_before(api, "n1")


def test_a_worker_with_no_other_place_does_not_evict_itself(
    api: SimulatedApi, fleet: KubernetesFleet, own_pod: str
) -> None:
    put_node(api, "n1")
    put_node(api, "n2", cordoned=True)
    put_pod(api, "n1", own_pod)
    with pytest.raises(WorkError, match="have Longshore's workers run elsewhere") as refused:
        refresh(fleet)
    assert refused.value.error_class == ErrorClass.INVALID
    assert names(api) == [own_pod]
    assert is_as_before(api, "n1")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "nodes"),
        ("get", "nodes"),
        ("patch", "nodes"),
        ("list", "pods"),
        ("create", "pods/eviction"),
        ("list", "poddisruptionbudgets"),
    ],
)
def test_a_right_that_is_missing_is_said_with_the_manifest_that_gives_it(
    api: SimulatedApi, fleet: KubernetesFleet, verb: str, resource: str
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.forbidden.add((verb, resource))
    with pytest.raises(WorkError, match=rf"cannot {verb} .*Apply deploy/kubernetes/nodes\.yaml") as refused:
        [fleet.nodes(), fleet.plan("n1"), refresh(fleet)]
    assert refused.value.error_class == ErrorClass.UNAVAILABLE
    assert is_as_before(api, "n1")
