"""Disruption budgets: which of them allow no eviction of these pods at the moment."""

from collections.abc import Iterable, Mapping

from kubernetes.client import V1LabelSelector, V1LabelSelectorRequirement, V1Pod, V1PodDisruptionBudget

from workers.refreshing.kubernetes.pods import is_ending, phase_of
from workers.serving.kubernetes.cluster import REQUEST_SECONDS, Cluster
from workers.serving.kubernetes.labels import meta_of, name_of


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
