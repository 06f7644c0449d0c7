"""Emptying a node: its pods are evicted as disruption budgets allow, until they are gone.

Disruption budgets: which of them allow no eviction of these pods at the moment.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
from workers.kubernetes.cluster import REQUEST_SECONDS, Cluster, said_by
from workers.kubernetes.labels import meta_of, name_of
from workers.nodes.kubernetes.nodes import POLL_INTERVAL_SECONDS, asking, is_cordoned, is_ready
from workers.nodes.kubernetes.pods import is_ending, is_own, listed, path_of, paths_of, phase_of, pods_of

REFUSED_SECONDS = 5.0
"""When a refused eviction is asked for again, where the API names no time."""
GONE, ANOTHER, REFUSED, FORBIDDEN, FAILED = 404, 409, 429, 403, 500


@dataclass(frozen=True)
class EvictionOutcome:
    """An eviction that is not allowed at the moment."""

    pod: str
    why: str
    """The API's own words; they name the budget."""
    retry_after: float


def drain_node(
    cluster: Cluster,
    node_name: str,
    check: Callable[[], object],
    say: Callable[[str], None],
    stop: CancelToken,
    *,
    within_seconds: float,
) -> None:
    """Evict the pods of a node, and wait until they are gone. `check` raises when this is to be left off.

    Raises:
        Stopped: the stop was asked for.
        WorkError: a pod, or the worker itself, could not come back, so nothing more was evicted (invalid); it took
            longer than `within_seconds` (invalid, for an operator has to look); the cluster does not answer; or what
            `check` raises.
    """
    ends = time.monotonic() + within_seconds
    while True:
        check()
        with asking(f"empty node {node_name}"):
            pods = pods_of(cluster, node_name)
            _refuse_unmanaged(node_name, pods.unmanaged)
            _refuse_the_workers_only_place(cluster, node_name, pods.go)
            if not pods.go:
                return
            turn = _whose_turn(pods.go, say)
            refused = _evict_all(cluster, turn, stop)
        news = _in_words(turn, refused)
        left = ends - time.monotonic()
        if left <= 0:
            message = (
                f"Node {node_name} was not empty within {within_seconds:g} s (LONGSHORE_NODE_DRAIN_TIMEOUT_SECONDS): {news} "
                "Have budgets allow an eviction (more replicas, for example), and look at pods that do not end."
            )
            raise WorkError(ErrorClass.INVALID, message)
        say(news)
        stop.pause(min(left, max((one.retry_after for one in refused), default=POLL_INTERVAL_SECONDS)))


def _refuse_unmanaged(node_name: str, unmanaged: Sequence[V1Pod]) -> None:
    if unmanaged:
        message = (
            f"Node {node_name} has pods that nothing would bring back: {listed(paths_of(unmanaged))}. Delete them, or "
            "have a Deployment, StatefulSet or Job run them; no more is evicted until then."
        )
        raise WorkError(ErrorClass.INVALID, message)


def _refuse_the_workers_only_place(cluster: Cluster, node_name: str, pods: Sequence[V1Pod]) -> None:
    """A worker that can come back to this node alone would evict itself again and again."""
    if not any(map(is_own, pods)):
        return
    nodes = cluster.core.list_node(_request_timeout=REQUEST_SECONDS).items
    if not any(is_ready(node) and not is_cordoned(node) for node in nodes if name_of(node) != node_name):
        message = (
            f"The worker that does this runs on node {node_name} itself, and no other node takes pods: have "
            "Longshore's workers run elsewhere."
        )
        raise WorkError(ErrorClass.INVALID, message)


def _whose_turn(pods: Sequence[V1Pod], say: Callable[[str], None]) -> Sequence[V1Pod]:
    """All but the pod that this process runs in, and that one when all others are gone."""
    others = [pod for pod in pods if not is_own(pod)]
    if not others:
        say("Evicts the pod of the worker that does this: another worker goes on.")
    return others or pods


def _evict_all(cluster: Cluster, pods: Sequence[V1Pod], stop: CancelToken) -> list[EvictionOutcome]:
    """Ask for the eviction of each that does not end yet; gives those that are not allowed."""
    refused = []
    for pod in pods:
        stop.check()
        if not is_ending(pod):
            refused.append(_evict(cluster, pod))
    return [one for one in refused if one is not None]


def _evict(cluster: Cluster, pod: V1Pod) -> EvictionOutcome | None:
    """Ask for one eviction; None: the pod ends, or is gone."""
    meta = meta_of(pod)
    eviction = V1Eviction(
        api_version="policy/v1",
        kind="Eviction",
        metadata=V1ObjectMeta(name=meta.name, namespace=meta.namespace),
        # Of a StatefulSet, the pod of this name may be another by now, on another node.
        delete_options=V1DeleteOptions(preconditions=V1Preconditions(uid=meta.uid)),
    )
    try:
        cluster.core.create_namespaced_pod_eviction(
            str(meta.name), str(meta.namespace), eviction, _request_timeout=REQUEST_SECONDS
        )
    except ApiException as error:
        causes = _causes(error)
        if error.status in (GONE, ANOTHER) or (error.status == FORBIDDEN and "NamespaceTerminating" in causes):
            return None
        if error.status == FAILED and "more than one" in said_by(error):
            message = f"Pod {path_of(pod)} cannot be evicted: {said_by(error)}. Have one budget select it."
            raise WorkError(ErrorClass.INVALID, message) from None
        if error.status != REFUSED:
            raise
        return EvictionOutcome(path_of(pod), causes.get("DisruptionBudget") or said_by(error), _retry_after(error))
    return None


def _in_words(pods: Sequence[V1Pod], refused: Sequence[EvictionOutcome]) -> str:
    refused_pods = {one.pod for one in refused}
    ending = [path for path in paths_of(pods) if path not in refused_pods]
    texts = []
    if refused:
        texts.append(f"Waits for evictions to be allowed: {listed([f'{one.pod} ({one.why})' for one in refused])}.")
    if ending:
        texts.append(f"Waits for pods to end: {listed(ending)}.")
    return " ".join(texts)


def _causes(error: ApiException) -> dict[str, str]:
    """What the API's `Status` gives as causes: messages by reasons."""
    try:
        causes = json.loads(error.body or "")["details"]["causes"]
        return {str(cause["reason"]): str(cause.get("message", "")) for cause in causes}
    except (ValueError, KeyError, TypeError):
        return {}


def _retry_after(error: ApiException) -> float:
    """In seconds."""
    named = str((error.headers or {}).get("Retry-After", ""))
    return float(named) if named.isdigit() else REFUSED_SECONDS


def refusing_budgets(cluster: Cluster, pods: Iterable[V1Pod]) -> list[str]:
    """NAMESPACE/NAME of the budgets that would refuse to have one of these pods evicted now.

    Raises:
        ApiException: the API refuses.
    """
    # The API asks no budget about a pod that has not started, or ends already.
    asked_about = [pod for pod in pods if phase_of(pod) != "Pending" and not is_ending(pod)]
    refusing = []
    for namespace in sorted({str(meta_of(pod).namespace) for pod in asked_about}):
        labels = [meta_of(pod).labels or {} for pod in asked_about if meta_of(pod).namespace == namespace]
        budgets = cluster.policy.list_namespaced_pod_disruption_budget(namespace, _request_timeout=REQUEST_SECONDS)
        refusing += [
            f"{namespace}/{name_of(budget)}"
            for budget in budgets.items
            if _is_used_up(budget) and any(_selects(budget, one) for one in labels)
        ]
    return refusing


def _is_used_up(budget: V1PodDisruptionBudget) -> bool:
    return budget.status is not None and budget.status.disruptions_allowed == 0


def _selects(budget: V1PodDisruptionBudget, labels: Mapping[str, str]) -> bool:
    """Whether a budget is about pods with these labels: an empty selector is about all, a missing one about none."""
    selector: V1LabelSelector | None = budget.spec.selector if budget.spec else None
    if selector is None:
        return False
    equal = (labels.get(name) == value for name, value in (selector.match_labels or {}).items())
    return all(equal) and all(_holds(one, labels) for one in selector.match_expressions or [])


def _holds(requirement: V1LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
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
