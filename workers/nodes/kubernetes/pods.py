"""The pods of a node, told apart by what becomes of them when it is emptied."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import V1Pod

from workers.kubernetes.cluster import REQUEST_SECONDS, Cluster
from workers.kubernetes.labels import meta_of

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a pod that only shows what the node keeps by itself (a static pod)."""
FINISHED = ("Succeeded", "Failed")
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a process in a pod finds its namespace."""
MAX_NAMED = 10


@dataclass(frozen=True)
class Pods:
    """Those of a node, as `kubectl drain` tells them apart; without those that have finished: they hold nothing up."""

    go: tuple[V1Pod, ...]
    """They can be evicted, or end already."""
    stay: tuple[V1Pod, ...]
    """A DaemonSet would bring them back to the same node, or the node itself would."""
    unmanaged: tuple[V1Pod, ...]
    """Nothing would bring them back, so none of them is ended."""


def pods_of(cluster: Cluster, node_name: str) -> Pods:
    """The pods of a node.

    Raises:
        ApiException: the API refuses.
    """
    found = cluster.core.list_pod_for_all_namespaces(
        field_selector=f"spec.nodeName={node_name}", _request_timeout=REQUEST_SECONDS
    ).items
    go: list[V1Pod] = []
    stay: list[V1Pod] = []
    unmanaged: list[V1Pod] = []
    for pod in found:
        if phase_of(pod) in FINISHED:
            continue
        fate = stay if _stays(pod) else go if _controller(pod) or is_ending(pod) else unmanaged
        fate.append(pod)
    return Pods(tuple(go), tuple(stay), tuple(unmanaged))


def phase_of(pod: V1Pod) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.status.phase) if pod.status else ""


def is_ending(pod: V1Pod) -> bool:
    """Whether its end was asked for."""
    return meta_of(pod).deletion_timestamp is not None


def is_own(pod: V1Pod) -> bool:
    """Whether this very process runs in it."""
    meta = meta_of(pod)
    return meta.name == os.environ.get("HOSTNAME") and meta.namespace == _own_namespace()


def path_of(pod: V1Pod) -> str:
    """NAMESPACE/NAME."""
    meta = meta_of(pod)
    return f"{meta.namespace}/{meta.name}"


def paths_of(pods: Sequence[V1Pod]) -> tuple[str, ...]:
    """NAMESPACE/NAME of each, in order."""
    return tuple(sorted(map(path_of, pods)))


def listed(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _stays(pod: V1Pod) -> bool:
    return MIRROR in (meta_of(pod).annotations or {}) or _controller(pod) == "DaemonSet"


def _controller(pod: V1Pod) -> str:
    """The kind of what brings the pod back; empty: nothing does."""
    owners = meta_of(pod).owner_references or []
    return next((str(owner.kind) for owner in owners if owner.controller), "")


def _own_namespace() -> str | None:
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:
        return None
