"""Drain a node: evict its pods as disruption budgets allow, and wait until they are gone."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from kubernetes.client import (
    V1DeleteOptions,
    V1Eviction,
    V1LabelSelector,
    V1LabelSelectorRequirement,
    V1ObjectMeta,
    V1Pod,
    V1PodDisruptionBudget,
    V1Preconditions,
)
from kubernetes.client.exceptions import ApiException

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.numbers import whole_number
from workers.kubernetes.cluster import Cluster, is_terminating, metadata_of, name_of, status_message
from workers.nodes.kubernetes.nodes import (
    POLL_INTERVAL_SECONDS,
    is_cordoned,
    is_own,
    is_ready,
    join_first,
    node_errors,
    path_of,
    paths_of,
    phase_of,
    pods_on,
)

RETRY_INTERVAL_SECONDS = 5.0
"""How long until a refused eviction is retried, if the API gives no `Retry-After`."""


@dataclass(frozen=True)
class RefusedEviction:
    """An eviction that the API does not allow at the moment, with its message, which names the budget.

    `retry_after` is in seconds.
    """

    pod: str
    reason: str
    retry_after: float


def drain_node(
    cluster: Cluster,
    node_name: str,
    check: Callable[[], object],
    report: Callable[[str], None],
    stop: CancelToken,
    *,
    timeout_seconds: float,
) -> None:
    """Evict the pods of a node, and wait until they are gone. `check` is called at each poll and raises to end it.

    Raises:
        WorkCancelledError: the drain was cancelled.
        WorkError: a pod, or the worker itself, would not be replaced, so nothing more is evicted (invalid); it took
            longer than the timeout (invalid, because an operator has to act); the cluster does not respond; or what
            `check` raises.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        check()
        with node_errors(f"drain node {node_name}"):
            pods = pods_on(cluster, node_name)
            _check_evictable(cluster, node_name, pods.evictable, pods.unmanaged)
            if not pods.evictable:
                return
            # The pod of this process is evicted last.
            next_pods = [pod for pod in pods.evictable if not is_own(pod)]
            if not next_pods:
                report("Evicts the pod of this worker: another worker resumes.")
                next_pods = list(pods.evictable)
            refused = _evict_all(cluster, next_pods, stop)
        message = _describe(next_pods, refused)
        left = deadline - time.monotonic()
        if left <= 0:
            raise WorkError(
                ErrorClass.INVALID,
                f"Node {node_name} was not empty within {timeout_seconds:g} s (LONGSHORE_NODE_DRAIN_TIMEOUT_SECONDS): "
                f"{message} Make the budgets allow an eviction (for example by more replicas), and check "
                "the pods that do not end.",
            )
        report(message)
        stop.sleep(min(left, max((one.retry_after for one in refused), default=POLL_INTERVAL_SECONDS)))


def _check_evictable(cluster: Cluster, node_name: str, evictable: Sequence[V1Pod], unmanaged: Sequence[V1Pod]) -> None:
    if unmanaged:
        raise WorkError(
            ErrorClass.INVALID,
            f"Node {node_name} has pods that no controller would replace: {join_first(paths_of(unmanaged))}. Delete "
            "them, or run them with a Deployment, StatefulSet or Job; nothing more is evicted until then.",
        )
    if not any(map(is_own, evictable)):
        return
    # A worker that can only be scheduled on this node again would evict itself again and again.
    if not any(
        is_ready(node) and not is_cordoned(node)
        for node in cluster.core.list_node().items
        if name_of(node) != node_name
    ):
        raise WorkError(
            ErrorClass.INVALID,
            f"This worker runs on node {node_name} itself, and no other node takes pods: run Longshore's workers "
            "elsewhere.",
        )


def _evict_all(cluster: Cluster, pods: Sequence[V1Pod], stop: CancelToken) -> list[RefusedEviction]:
    """Evict the pods that are not terminating yet; return the evictions that are not allowed."""
    refused = []
    for pod in pods:
        stop.check()
        if not is_terminating(pod):
            refused.append(_evict(cluster, pod))
    return [refusal for refusal in refused if refusal is not None]


def _evict(cluster: Cluster, pod: V1Pod) -> RefusedEviction | None:
    metadata = metadata_of(pod)
    eviction = V1Eviction(
        api_version="policy/v1",
        kind="Eviction",
        metadata=V1ObjectMeta(name=metadata.name, namespace=metadata.namespace),
        # The pod of a StatefulSet keeps its name, so the name may belong to a pod of another node by now.
        delete_options=V1DeleteOptions(preconditions=V1Preconditions(uid=metadata.uid)),
    )
    try:
        cluster.core.create_namespaced_pod_eviction(str(metadata.name), str(metadata.namespace), eviction)
    except ApiException as error:
        causes = _causes(error)
        # 409: the pod of this name has another uid by now.
        is_gone = error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
        if is_gone or (error.status == HTTPStatus.FORBIDDEN and "NamespaceTerminating" in causes):
            return None
        if error.status == HTTPStatus.INTERNAL_SERVER_ERROR and "more than one" in status_message(error):
            raise WorkError(
                ErrorClass.INVALID,
                f"Pod {path_of(pod)} cannot be evicted: {status_message(error)}. Let only one budget select it.",
            ) from None
        if error.status != HTTPStatus.TOO_MANY_REQUESTS:
            raise
        retry_after = whole_number((error.headers or {}).get("Retry-After"))
        return RefusedEviction(
            pod=path_of(pod),
            reason=causes.get("DisruptionBudget") or status_message(error),
            retry_after=RETRY_INTERVAL_SECONDS if retry_after is None else float(retry_after),
        )
    return None


def _describe(pods: Sequence[V1Pod], refused: Sequence[RefusedEviction]) -> str:
    refused_pods = {refusal.pod for refusal in refused}
    waits = (
        ("evictions to be allowed", [f"{refusal.pod} ({refusal.reason})" for refusal in refused]),
        ("pods to end", [path for path in paths_of(pods) if path not in refused_pods]),
    )
    return " ".join(f"Waits for {what}: {join_first(texts)}." for what, texts in waits if texts)


def _causes(error: ApiException) -> dict[str, str]:
    """Return the causes in the API's `Status` object: messages by reason."""
    try:
        return {
            str(cause["reason"]): str(cause.get("message", ""))
            for cause in json.loads(error.body or "")["details"]["causes"]
        }
    except (ValueError, KeyError, TypeError):
        return {}


def exhausted_budgets(cluster: Cluster, pods: Iterable[V1Pod]) -> list[str]:
    """Return NAMESPACE/NAME of the budgets that would refuse the eviction of one of these pods now.

    Raises:
        ApiException: the API refuses.
    """
    # The API checks no budget for a pod that has not started, or is terminating.
    checked = [pod for pod in pods if phase_of(pod) != "Pending" and not is_terminating(pod)]
    exhausted = []
    for namespace in sorted({str(metadata_of(pod).namespace) for pod in checked}):
        labels = [metadata_of(pod).labels or {} for pod in checked if metadata_of(pod).namespace == namespace]
        exhausted += [
            f"{namespace}/{name_of(budget)}"
            for budget in cluster.policy.list_namespaced_pod_disruption_budget(namespace).items
            if budget.status is not None
            and budget.status.disruptions_allowed == 0
            and any(_selects(budget, one) for one in labels)
        ]
    return exhausted


def _selects(budget: V1PodDisruptionBudget, labels: Mapping[str, str]) -> bool:
    """Return whether a budget selects pods with these labels. An empty selector selects all, a missing one none."""
    selector: V1LabelSelector | None = budget.spec.selector if budget.spec else None
    if selector is None:
        return False
    equal = (labels.get(key) == value for key, value in (selector.match_labels or {}).items())
    return all(equal) and all(_matches(one, labels) for one in selector.match_expressions or [])


def _matches(requirement: V1LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement.key), requirement.values or []
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
