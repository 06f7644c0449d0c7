"""Refresh a node step by step, and report the cause when it fails."""

import pytest

from shared.errors import ErrorClass, WorkError
from tests.kubernetes.nodes.reports import JOB, Reports, names, refresh, state_on
from tests.kubernetes.nodes.worker_nodes import (
    REFRESH,
    is_as_before,
    is_cordoned,
    lose,
    node_of,
    put_node,
    put_pod,
    reboot,
)
from tests.kubernetes.simulated import Document, SimulatedApi
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.nodes.node_pool import RestartHook


def test_the_nodes_of_algorithms_by_name(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n2", cordoned=True)
    put_node(api, "n1")
    put_node(api, "database", labels={})
    lose(api, "n1", "the disk is full")
    assert pool.node_names() == ["n1", "n2"]


def test_a_node_is_cordoned_emptied_restarted_and_takes_pods_again(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n2", "elsewhere")
    seen: list[Document] = []

    def restart(name: str) -> None:
        assert (name, is_cordoned(api, name), names(api)) == ("n1", True, ["elsewhere"])
        seen.append(state_on(api))
        reboot(api, name)

    reports = Reports()
    refresh(pool, reports, restart)
    assert is_as_before(api, "n1")
    assert [(mark["mark"], mark["boot_id"], mark["restarted_at"] > 0) for mark in seen] == [(JOB, "boot-1", True)]
    assert reports.messages == [
        "Node n1 is cordoned.",
        "Waits for pods to end: work/web-1.",
        "Node n1 is empty.",
        "Requests the restart of node n1.",
        "Node n1 is ready.",
    ]


def test_the_cordon_and_whose_it_is_are_one_step(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    refresh(pool)
    first, last = api.bodies
    assert (first["spec"], list(first["metadata"]["annotations"])) == ({"unschedulable": True}, [REFRESH])
    assert (last["spec"], last["metadata"]["annotations"]) == ({"unschedulable": None}, {REFRESH: None})
    assert all(body["metadata"]["resourceVersion"] for body in api.bodies)


def test_a_node_that_the_kubelet_writes_to_meanwhile_is_cordoned_all_the_same(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    put_node(api, "n1")

    def kubelet_writes(api: SimulatedApi) -> None:
        api.on_answer = lambda _api: None
        api.put("nodes", node_of(api, "n1"))

    api.on_answer = kubelet_writes
    refresh(pool)
    assert len(api.bodies) == 3  # the first of which was refused
    assert is_as_before(api, "n1")


def test_a_node_that_somebody_else_cordoned_is_refreshed_and_stays_cordoned(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    put_node(api, "n1", cordoned=True)
    put_pod(api, "n1", "web-1")
    seen: list[Document] = []
    reports = Reports(Node_n1_was_cordoned_by_somebody_else=lambda: seen.append(state_on(api)))
    refresh(pool, reports)
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
    api: SimulatedApi, pool: KubernetesNodePool, mark: str, error_class: ErrorClass, match: str
) -> None:
    put_node(api, "n1", cordoned=True, mark=mark)
    put_pod(api, "n1", "web-1")
    with pytest.raises(WorkError, match=match) as refused:
        refresh(pool)
    assert refused.value.error_class == error_class
    assert (is_cordoned(api, "n1"), names(api), api.bodies) == (True, ["web-1"], [])
    assert pool.uncordon(JOB) == []


def test_a_node_that_is_gone_is_said(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    for ask in (lambda: refresh(pool), lambda: pool.plan("n1")):
        with pytest.raises(WorkError, match="no node n1 any more") as failed:
            ask()
        assert failed.value.error_class == ErrorClass.NOT_FOUND
    put_node(api, "n1")
    with pytest.raises(WorkError, match="no node n1 any more"):
        refresh(pool, Reports(Node_n1_is_cordoned=lambda: api.remove("nodes", "n1")))


def test_a_hook_that_fails_ends_it_and_the_node_takes_pods_again(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    asked: list[str] = []

    def restart(name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            raise WorkError(ErrorClass.TRANSIENT, "the hook ended with exit code 3")
        reboot(api, name)

    with pytest.raises(WorkError, match="exit code 3"):
        refresh(pool, restart=restart)
    assert is_as_before(api, "n1")
    refresh(pool, restart=restart)
    assert asked == ["n1", "n1"]


@pytest.mark.parametrize("restart", [None, lambda _name: None])
def test_a_node_that_does_not_become_ready_is_said_with_its_own_words(
    api: SimulatedApi, hasty_pool: KubernetesNodePool, restart: RestartHook | None
) -> None:
    put_node(api, "n1")
    lose(api, "n1", "container runtime is down")
    with pytest.raises(WorkError, match=r"Ready is False \(container runtime is down\)") as failed:
        refresh(hasty_pool, restart=restart)
    assert failed.value.error_class == ErrorClass.TRANSIENT
    assert ("has not restarted" in failed.value.message) == (restart is not None)
    assert is_as_before(api, "n1")


def test_a_restarted_node_is_waited_for_until_its_kubelet_is_ready(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")

    def comes_back() -> None:
        reboot(api, "n1")
        lose(api, "n1", "no network yet")

    reports = Reports(
        Waits_until_node_n1_has_restarted=comes_back, Waits_until_node_n1_is_ready=lambda: reboot(api, "n1")
    )
    refresh(pool, reports, lambda _name: None)
    assert reports.messages[-3:] == [
        "Waits until node n1 has restarted.",
        "Waits until node n1 is ready.",
        "Node n1 is ready.",
    ]


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
    api: SimulatedApi, pool: KubernetesNodePool, verb: str, resource: str
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.forbidden.add((verb, resource))

    def use_all_rights() -> None:
        pool.node_names()
        pool.plan("n1")
        refresh(pool)

    with pytest.raises(WorkError, match=rf"cannot {verb} .*Apply deploy/kubernetes/nodes\.yaml") as refused:
        use_all_rights()
    assert refused.value.error_class == ErrorClass.UNAVAILABLE
    assert is_as_before(api, "n1")
