"""Read and change the nodes of a cluster, and wait until one is ready."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from kubernetes.client import V1Node, V1NodeCondition

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import Cluster, change_object, cluster_errors, if_exists

POLL_INTERVAL_SECONDS = 1.0


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
            within = f"within {timeout_seconds:g} s (LONGSHORE_NODE_READY_SECONDS)"
            problem = "has not restarted" if is_restarting else "was not ready"
            message = f"Node {name} {problem} {within}: {_describe_condition(node)} Check the node and its kubelet."
            raise WorkError(ErrorClass.TRANSIENT, message)
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
