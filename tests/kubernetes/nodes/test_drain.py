"""Drain a node: which pods are evicted, which stay, and what delays an eviction."""

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from tests.kubernetes.nodes.reports import Reports, names, refresh
from tests.kubernetes.nodes.worker_nodes import (
    end_slowly,
    is_as_before,
    put_budget,
    put_node,
    put_pod,
)
from tests.kubernetes.simulated import ApiError, Document, Request, SimulatedApi
from workers.nodes.kubernetes.node_pool import KubernetesNodePool
from workers.nodes.node_pool import DrainPlan


def test_what_stays_on_a_node(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "log-collector", owner="DaemonSet")
    put_pod(api, "n1", "kube-proxy-n1", owner="Node", annotations={"kubernetes.io/config.mirror": "hash"})
    put_pod(api, "n1", "done", owner=None, phase="Succeeded")
    put_pod(api, "n1", "failed", owner="Job", phase="Failed")
    put_pod(api, "n1", "with-emptydir")["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    assert pool.plan("n1") == DrainPlan(
        evicted=("work/with-emptydir",), stay=("work/kube-proxy-n1", "work/log-collector")
    )
    refresh(pool)
    assert names(api) == ["done", "failed", "kube-proxy-n1", "log-collector"]
    assert is_as_before(api, "n1")


def test_a_pod_that_nothing_brings_back_is_named_and_no_pod_is_evicted(
    api: SimulatedApi, pool: KubernetesNodePool
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "a-web")
    put_pod(api, "n1", "bare", owner=None)
    assert pool.plan("n1") == DrainPlan(evicted=("work/a-web",), stay=(), refused_for=("work/bare",))
    with pytest.raises(WorkError, match="no controller would replace: work/bare") as refused:
        refresh(pool)
    assert refused.value.error_class == ErrorClass.INVALID
    assert names(api) == ["a-web", "bare"]
    assert is_as_before(api, "n1")


def test_a_pod_is_waited_for_until_it_is_gone(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    reports = Reports(Waits_for_pods_to_end=lambda: api.remove("pods", "web-1"))
    refresh(pool, reports)
    assert reports.messages[1:] == ["Waits for pods to end: work/web-1.", "Node n1 is empty.", "Node n1 is ready."]


def test_a_pod_that_does_not_end_is_named(api: SimulatedApi, hasty_pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.on_eviction = end_slowly
    with pytest.raises(WorkError, match=r"not empty within 1 s .*Waits for pods to end: work/web-1") as failed:
        refresh(hasty_pool)
    assert failed.value.error_class == ErrorClass.INVALID
    assert is_as_before(api, "n1")


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_pod_that_is_gone_or_another_by_now_is_no_failure(
    api: SimulatedApi, pool: KubernetesNodePool, change: str
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "db-0", owner="StatefulSet")

    def meanwhile(api: SimulatedApi) -> None:
        if Request("", "pods", "list", namespaced=False) in api.requests:
            api.on_answer = lambda _api: None
            api.remove("pods", "db-0")
            if change == "replaced":
                put_pod(api, "n2", "db-0", owner="StatefulSet")

    api.on_answer = meanwhile
    refresh(pool)
    assert names(api) == (["db-0"] if change == "replaced" else [])
    assert is_as_before(api, "n1")


def test_a_budget_is_waited_for_until_it_allows_the_eviction(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "other-1", app="other")
    put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
    assert pool.plan("n1").waits_for == ("work/web",)

    def opens() -> None:
        assert names(api) == ["web-1"]
        put_budget(api, "web", allowed=1, matchLabels={"app": "app"})

    reports = Reports(Waits_for_evictions=opens)
    refresh(pool, reports)
    assert reports.messages[1].startswith(
        "Waits for evictions to be allowed: work/web-1 (The disruption budget web needs 1 healthy pods and has 1 "
        "currently)."
    )
    assert names(api) == []
    assert is_as_before(api, "n1")


def test_a_budget_that_never_allows_it_is_named_and_the_node_takes_pods_again(
    api: SimulatedApi, hasty_pool: KubernetesNodePool
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_budget(api, "web", allowed=0, matchLabels={"app": "app"})
    with pytest.raises(WorkError, match=r"work/web-1 \(The disruption budget web needs") as failed:
        refresh(hasty_pool)
    assert failed.value.error_class == ErrorClass.INVALID
    assert "LONGSHORE_NODE_DRAIN_TIMEOUT_SECONDS" in failed.value.message
    assert names(api) == ["web-1"]
    assert is_as_before(api, "n1")


def test_the_time_that_the_api_names_is_waited_for(
    api: SimulatedApi, pool: KubernetesNodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    stop, pauses = CancelToken(), list[float]()
    monkeypatch.setattr(stop, "sleep", pauses.append)
    api.refuse["pods"] = ApiError(429, "The disruption budget web is still being processed", retry_after=10)
    refresh(pool, Reports(Waits_for_evictions=api.refuse.clear), stop=stop)
    assert pauses == [10, 0.01]


def test_no_longer_than_the_limit_whatever_the_api_names(
    api: SimulatedApi, hasty_pool: KubernetesNodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    stop, pauses = CancelToken(), list[float]()
    monkeypatch.setattr(stop, "sleep", pauses.append)
    api.refuse["pods"] = ApiError(429, "slow down", retry_after=3600)
    with pytest.raises(WorkError, match="slow down"):
        refresh(hasty_pool, stop=stop)
    assert max(pauses) <= 1


def test_a_pod_of_two_budgets_is_said_to_be_so(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    api.refuse["pods"] = ApiError(500, message)
    with pytest.raises(WorkError, match="work/web-1 cannot be evicted: This pod has more than one") as failed:
        refresh(pool)
    assert failed.value.error_class == ErrorClass.INVALID


def test_a_pod_of_a_namespace_that_ends_is_waited_for(api: SimulatedApi, pool: KubernetesNodePool) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    api.refuse["pods"] = ApiError(
        403, "is being terminated", cause=("NamespaceTerminating", "work is being terminated")
    )
    refresh(pool, Reports(Waits_for_pods_to_end=lambda: api.remove("pods", "web-1")))
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
    api: SimulatedApi, pool: KubernetesNodePool, selector: Document, is_meant: bool
) -> None:
    put_node(api, "n1")
    put_pod(api, "n1", "web-1")
    put_pod(api, "n1", "pending", app="pending", phase="Pending")
    put_budget(api, "web", allowed=0, **selector)
    put_budget(api, "open", allowed=1)
    put_budget(api, "pending", allowed=0, matchLabels={"app": "pending"})
    put_budget(api, "elsewhere", allowed=0, namespace="elsewhere")
    assert pool.plan("n1").waits_for == (("work/web",) if is_meant else ())
