"""Nodes of a cluster: reading one, changing one without losing what others change, and having it ready again."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from kubernetes.client import V1Node, V1NodeCondition
from kubernetes.client.exceptions import ApiException

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import MERGE, REQUEST_SECONDS, Cluster, answering, if_there
from workers.kubernetes.labels import meta_of

RIGHTS = "deploy/kubernetes/nodes.yaml"
POLL_INTERVAL_SECONDS = 1.0
CONFLICT = 409


def asking(what: str) -> AbstractContextManager[None]:
    """As `answering`, for what needs the rights over nodes."""
    return answering(what, rights=RIGHTS)


def read_node(cluster: Cluster, name: str) -> V1Node:
    """A node as it is now.

    Raises:
        WorkError: it is gone (not_found), or the cluster does not answer.
    """
    with asking(f"say how node {name} is"):
        node = if_there(cluster.core.read_node, name)
    if node is None:
        raise gone(name)
    return node


def change_node(cluster: Cluster, name: str, change: Callable[[V1Node], dict[str, Any] | None]) -> V1Node:
    """Have a node be as `change` says of it as it is now (a merge patch), and nobody's change in between be lost.

    Where `change` says nothing, nothing is changed. Gives the node as it is then.

    Raises:
        WorkError: it is gone (not_found), or the cluster does not answer.
    """
    while True:
        node = read_node(cluster, name)
        patch = change(node)
        if patch is None:
            return node
        # The API refuses the patch of a node that is another by now. Kubelets write theirs every few minutes.
        patch["metadata"] = {**patch.get("metadata", {}), "resourceVersion": meta_of(node).resource_version}
        with asking(f"change node {name}"):
            try:
                return cluster.core.patch_node(name, patch, _content_type=MERGE, _request_timeout=REQUEST_SECONDS)
            except ApiException as error:
                if error.status == 404:
                    raise gone(name) from None
                if error.status != CONFLICT:
                    raise


def await_ready(
    name: str,
    look: Callable[[], V1Node],
    say: Callable[[str], None],
    stop: CancelToken,
    *,
    not_boot: str | None,
    within_seconds: float,
) -> None:
    """Wait until a node, as `look` sees it, is ready; in another boot than `not_boot`, if that is given.

    Raises:
        Stopped: the stop was asked for.
        WorkError: it took longer than `within_seconds` (transient), or what `look` raises.
    """
    ends = time.monotonic() + within_seconds
    while True:
        stop.check()
        node = look()
        restarts = not_boot is not None and boot_of(node) == not_boot
        if is_ready(node) and not restarts:
            return
        if time.monotonic() > ends:
            waited = f"within {within_seconds:g} s (LONGSHORE_NODE_READY_SECONDS)"
            what = "has not restarted" if restarts else "was not ready"
            message = f"Node {name} {what} {waited}: {_condition_in_words(node)} Look at the node and at its kubelet."
            raise WorkError(ErrorClass.TRANSIENT, message)
        say(f"Waits until node {name} {'has restarted' if restarts else 'is ready'}.")
        stop.pause(POLL_INTERVAL_SECONDS)


def is_ready(node: V1Node) -> bool:
    """Whether its kubelet says that it takes pods."""
    condition = _ready_condition(node)
    return condition is not None and condition.status == "True"


def is_cordoned(node: V1Node) -> bool:
    """Whether somebody said that it takes no new pods."""
    return bool(node.spec and node.spec.unschedulable)


def boot_of(node: V1Node) -> str:
    """The id of its boot: another after each restart of the machine."""
    info = node.status.node_info if node.status else None
    return str(info.boot_id) if info else ""


def gone(name: str) -> WorkError:
    """What is said of a node that the cluster does not have."""
    return WorkError(ErrorClass.NOT_FOUND, f"The cluster has no node {name} any more.")


def _ready_condition(node: V1Node) -> V1NodeCondition | None:
    conditions = (node.status.conditions if node.status else None) or []
    return next((condition for condition in conditions if condition.type == "Ready"), None)


def _condition_in_words(node: V1Node) -> str:
    condition = _ready_condition(node)
    if condition is None:
        return "its kubelet has not said whether it is ready."
    said = (condition.message or condition.reason or "no reason given").rstrip(".")
    return f"its condition Ready is {condition.status} ({said})."
