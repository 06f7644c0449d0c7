"""List the pods of a node, grouped by what a drain does with them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import V1Pod

from workers.kubernetes.cluster import Cluster
from workers.kubernetes.metadata import is_terminating, metadata_of

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a mirror pod, which represents a static pod of the node."""
FINISHED_PHASES = ("Succeeded", "Failed")
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Holds the namespace of the pod that this process runs in."""
MAX_LISTED = 10


@dataclass(frozen=True)
class NodePods:
    """The pods of a node, grouped as `kubectl drain` does. Finished pods are left out: they prevent nothing."""

    evictable: tuple[V1Pod, ...]
    """They can be evicted, or are terminating already."""
    staying: tuple[V1Pod, ...]
    """A DaemonSet or the node itself would create them on the same node again."""
    unmanaged: tuple[V1Pod, ...]
    """No controller would replace them, so they are not evicted."""


def pods_on(cluster: Cluster, node_name: str) -> NodePods:
    """Return the pods of a node.

    Raises:
        ApiException: the API refuses.
    """
    listed = cluster.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node_name}")
    evictable: list[V1Pod] = []
    staying: list[V1Pod] = []
    unmanaged: list[V1Pod] = []
    for pod in listed.items:
        controller = _controller_kind(pod)
        if phase_of(pod) in FINISHED_PHASES:
            continue
        if controller == "DaemonSet" or MIRROR in (metadata_of(pod).annotations or {}):
            staying.append(pod)
        elif controller or is_terminating(pod):
            evictable.append(pod)
        else:
            unmanaged.append(pod)
    return NodePods(tuple(evictable), tuple(staying), tuple(unmanaged))


def phase_of(pod: V1Pod) -> str:
    """Return Pending, Running, Succeeded, Failed or Unknown; empty if the API gives no status."""
    return str(pod.status.phase) if pod.status else ""


def is_own(pod: V1Pod) -> bool:
    """Return whether this process runs in the pod."""
    metadata = metadata_of(pod)
    if metadata.name != os.environ.get("HOSTNAME"):
        return False
    try:
        return metadata.namespace == NAMESPACE_FILE.read_text().strip()
    except OSError:
        return False


def path_of(pod: V1Pod) -> str:
    """Return NAMESPACE/NAME."""
    metadata = metadata_of(pod)
    return f"{metadata.namespace}/{metadata.name}"


def paths_of(pods: Sequence[V1Pod]) -> tuple[str, ...]:
    return tuple(sorted(map(path_of, pods)))


def join_first(texts: Sequence[str]) -> str:
    """Return the first texts, and how many more there are."""
    more = len(texts) - MAX_LISTED
    return ", ".join(texts[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _controller_kind(pod: V1Pod) -> str:
    """Return the kind of the pod's controller; empty if it has none."""
    owners = metadata_of(pod).owner_references or []
    return next((str(owner.kind) for owner in owners if owner.controller), "")
