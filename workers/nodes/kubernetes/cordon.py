"""The hold of a refresh on a node: its cordon, and the mark on the node that says whose it is and how far it is."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from kubernetes.client import V1Node
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import Cluster
from workers.kubernetes.labels import annotation_of
from workers.nodes.kubernetes.nodes import boot_of, change_node, is_cordoned, read_node

REFRESH = "longshore.io/refresh"
"""Annotation of a node that is being refreshed: a `Mark` as JSON. All that a refresh must know stands there."""


class CordonState(BaseModel):
    """Whose refresh it is, and how far."""

    model_config = ConfigDict(frozen=True)

    mark: str
    """The job that refreshes the node."""
    by: str
    """The attempt of that job that goes on with it."""
    boot_id: str
    """The boot that the node was in when it was cordoned."""
    cordoned_elsewhere: bool = False
    """Somebody else had cordoned the node before: it stays so."""
    restarted_at: int | None = None
    """When its restart was asked for, in seconds since 1970."""


class Cordon:
    """One attempt's hold on one node. Another attempt of the same job takes it over, and this one is told so."""

    def __init__(self, cluster: Cluster, node_name: str, job: str) -> None:
        self._cluster = cluster
        self._name = node_name
        self._job = job
        self._by = str(uuid.uuid4())

    def take(self) -> CordonState:
        """Cordon the node in one step with the mark on it, or go on with the mark that an attempt before left there.

        Raises:
            WorkError: another job refreshes it (transient), its mark cannot be read (invalid), it is gone (not_found),
                or the cluster does not answer.
        """

        def cordon(node: V1Node) -> dict[str, Any]:
            return {"spec": {"unschedulable": True}, **_annotated(self._next(node))}

        return self._mine(change_node(self._cluster, self._name, cordon))

    def look(self) -> V1Node:
        """The node, as it is now.

        Raises:
            WorkError: it is held no more (transient), it is gone (not_found), or the cluster does not answer.
        """
        node = read_node(self._cluster, self._name)
        self._mine(node)
        return node

    def note_restart(self) -> CordonState:
        """Write on the node that its restart is asked for.

        Raises:
            WorkError: it is held no more (transient), it is gone (not_found), or the cluster does not answer.
        """

        def note(node: V1Node) -> dict[str, Any]:
            return _annotated(self._mine(node).model_copy(update={"restarted_at": int(time.time())}))

        return self._mine(change_node(self._cluster, self._name, note))

    def uncordon(self) -> None:
        """Have the node be as schedulable as it was, unless it is held no more.

        Raises:
            WorkError: the cluster does not answer.
        """
        uncordon(self._cluster, self._name, lambda mark: mark.by == self._by)

    def _next(self, node: V1Node) -> CordonState:
        before = cordon_state_of(node)
        if before is None:
            if annotation_of(node, REFRESH):
                message = (
                    f"Node {self._name} has an annotation {REFRESH} that Longshore did not write: see to the node, and "
                    f"take it off (kubectl annotate node {self._name} {REFRESH}-)."
                )
                raise WorkError(ErrorClass.INVALID, message)
            return CordonState(mark=self._job, by=self._by, boot_id=boot_of(node), cordoned_elsewhere=is_cordoned(node))
        if before.mark != self._job:
            message = (
                f"Node {self._name} is refreshed by the job {before.mark}. If there is no such job any more: kubectl "
                f"annotate node {self._name} {REFRESH}- and kubectl uncordon {self._name}."
            )
            raise WorkError(ErrorClass.TRANSIENT, message)
        # Whoever uncordoned it meanwhile wants it schedulable at the end.
        still_elsewhere = before.cordoned_elsewhere and is_cordoned(node)
        return before.model_copy(update={"by": self._by, "cordoned_elsewhere": still_elsewhere})

    def _mine(self, node: V1Node) -> CordonState:
        mark = cordon_state_of(node)
        if mark is None or mark.by != self._by:
            message = f"The cordon of node {self._name} was taken over or taken off by somebody else"
            raise WorkError(ErrorClass.TRANSIENT, message)
        return mark


def cordon_state_of(node: V1Node) -> CordonState | None:
    """The mark on a node; None: there is none that can be read."""
    try:
        return CordonState.model_validate_json(annotation_of(node, REFRESH))
    except ValidationError:
        return None


def uncordon(cluster: Cluster, name: str, is_meant: Callable[[CordonState], bool]) -> None:
    """Have a node with such a mark be as schedulable as it was before, in one step with taking the mark off.

    Raises:
        WorkError: the cluster does not answer.
    """

    def uncordon(node: V1Node) -> dict[str, Any] | None:
        mark = cordon_state_of(node)
        if mark is None or not is_meant(mark):
            return None
        spec = {} if mark.cordoned_elsewhere else {"spec": {"unschedulable": None}}
        return {"metadata": {"annotations": {REFRESH: None}}, **spec}

    try:
        change_node(cluster, name, uncordon)
    except WorkError as error:
        if error.error_class != ErrorClass.NOT_FOUND:
            raise


def _annotated(mark: CordonState) -> dict[str, Any]:
    return {"metadata": {"annotations": {REFRESH: mark.model_dump_json(exclude_defaults=True)}}}
