"""Read and change nodes of a cluster, wait until one is ready, and list the pods of a node by what a drain does."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import V1Node, V1NodeCondition, V1Pod

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import Cluster, change_object, cluster_errors, if_exists, is_terminating, metadata_of

POLL_INTERVAL_SECONDS = 1.0
MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a mirror pod, which represents a static pod of the node."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
MAX_LISTED = 10


def node_errors(action: str) -> AbstractContextManager[None]:
    """Turn errors into work errors as `cluster_errors` does, for actions that need the rights over nodes."""
    return cluster_errors(action, rights="deploy/kubernetes/nodes.yaml")


def read_node(cluster: Cluster, name: str) -> V1Node:
    """Return a node as it is now.

    Raises:
        WorkError: the node does not exist (not_found), or the cluster does not respond.
    """
    with node_errors(f"read node {name}"):
        return _existing(name, if_exists(cluster.core.read_node, name))


def change_node(cluster: Cluster, name: str, change: Callable[[V1Node], dict[str, Any] | None]) -> V1Node:
    """Change a node as `change_object` does; return the node as it is then.

    Raises:
        WorkError: the node does not exist (not_found), or the cluster does not respond.
    """
    with node_errors(f"change node {name}"):
        return _existing(name, change_object(cluster.core.read_node, cluster.core.patch_node, name, change=change))


def await_ready(
    name: str,
    read: Callable[[], V1Node],
    report: Callable[[str], None],
    stop: CancelToken,
    *,
    previous_boot_id: str | None,
    timeout_seconds: float,
) -> None:
    """Wait until a node is ready; if `previous_boot_id` is given, until it is ready with another boot id.

    Raises:
        WorkCancelledError: the wait was cancelled.
        WorkError: it took longer than the timeout (transient), or what `read` raises.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        stop.check()
        node = read()
        is_restarting = previous_boot_id is not None and boot_id_of(node) == previous_boot_id
        if is_ready(node) and not is_restarting:
            return
        if time.monotonic() > deadline:
            problem = "has not restarted" if is_restarting else "was not ready"
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"Node {name} {problem} within {timeout_seconds:g} s (LONGSHORE_NODE_READY_SECONDS): "
                f"{_describe_condition(node)} Check the node and its kubelet.",
            )
        report(f"Waits until node {name} {'has restarted' if is_restarting else 'is ready'}.")
        stop.sleep(POLL_INTERVAL_SECONDS)


def is_ready(node: V1Node) -> bool:
    condition = _ready_condition(node)
    return condition is not None and condition.status == "True"


def is_cordoned(node: V1Node) -> bool:
    return bool(node.spec and node.spec.unschedulable)


def boot_id_of(node: V1Node) -> str:
    """Return the id of the node's boot, which changes with each restart of the machine."""
    info = node.status.node_info if node.status else None
    return str(info.boot_id) if info else ""


def _existing(name: str, node: V1Node | None) -> V1Node:
    if node is None:
        raise WorkError(ErrorClass.NOT_FOUND, f"The cluster has no node {name} any more.")
    return node


def _ready_condition(node: V1Node) -> V1NodeCondition | None:
    conditions = (node.status.conditions if node.status else None) or []
    return next((condition for condition in conditions if condition.type == "Ready"), None)


def _describe_condition(node: V1Node) -> str:
    condition = _ready_condition(node)
    if condition is None:
        return "its kubelet has not reported whether it is ready."
    reason = (condition.message or condition.reason or "no reason given").rstrip(".")
    return f"its condition Ready is {condition.status} ({reason})."


@dataclass(frozen=True)
class NodePods:
    """The pods of a node, grouped as `kubectl drain` does. Finished pods are left out: they prevent nothing.

    Those in `evictable` can be evicted, or are terminating already. A DaemonSet or the node itself would create those
    in `staying` on the same node again. No controller would replace those in `unmanaged`, so they are not evicted.
    """

    evictable: tuple[V1Pod, ...]
    staying: tuple[V1Pod, ...]
    unmanaged: tuple[V1Pod, ...]


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
        owners = metadata_of(pod).owner_references or []
        controller = next((str(owner.kind) for owner in owners if owner.controller), "")
        if phase_of(pod) in ("Succeeded", "Failed"):
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
    metadata = metadata_of(pod)
    return f"{metadata.namespace}/{metadata.name}"


def paths_of(pods: Sequence[V1Pod]) -> tuple[str, ...]:
    return tuple(sorted(map(path_of, pods)))


def join_first(texts: Sequence[str]) -> str:
    """Return the first texts, and how many more there are."""
    more = len(texts) - MAX_LISTED
    return ", ".join(texts[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
