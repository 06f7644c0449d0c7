"""Cordon a node for a refresh, with the refresh's state in an annotation of the node."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from kubernetes.client import V1Node
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ErrorClass, WorkError
from workers.kubernetes.cluster import Cluster, annotation_of
from workers.nodes.kubernetes.nodes import boot_id_of, change_node, is_cordoned, read_node

REFRESH = "longshore.io/refresh"
"""Annotation of a node that is being refreshed: a `CordonState` as JSON, which is all that a worker needs to resume."""


class CordonState(BaseModel):
    """The state of a refresh on its node. The names in the JSON document are a wire format.

    `attempt_id` is the attempt of the job that refreshes the node now, `boot_id` the node's when it was cordoned.
    `cordoned_before`: somebody else had cordoned the node, so it stays cordoned. `restarted_at` is when the restart was
    requested, in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    job_id: str = Field(alias="mark")
    attempt_id: str = Field(alias="by")
    boot_id: str
    cordoned_before: bool = Field(False, alias="cordoned_elsewhere")
    restarted_at: int | None = None


class Cordon:
    """One attempt's cordon of one node. Another attempt of the same job may take it over."""

    def __init__(self, cluster: Cluster, node_name: str, job_id: str) -> None:
        self._cluster = cluster
        self._name = node_name
        self._job_id = job_id
        self._attempt_id = str(uuid.uuid4())

    def acquire(self) -> CordonState:
        """Cordon the node and write the state in one step, or take over the state of an attempt before this one.

        Raises:
            WorkError: another job refreshes the node (transient), its annotation cannot be parsed (invalid), it does
                not exist (not_found), or the cluster does not respond.
        """
        return self._own_state(
            change_node(
                self._cluster,
                self._name,
                lambda node: {"spec": {"unschedulable": True}, **_annotate(self._next_state(node))},
            )
        )

    def read_node(self) -> V1Node:
        """Return the node as it is now.

        Raises:
            WorkError: the cordon was taken over (transient), the node does not exist (not_found), or the cluster does
                not respond.
        """
        node = read_node(self._cluster, self._name)
        self._own_state(node)
        return node

    def record_restart(self) -> CordonState:
        """Write to the node that its restart is requested.

        Raises:
            WorkError: as `read_node`.
        """
        return self._own_state(
            change_node(
                self._cluster,
                self._name,
                lambda node: _annotate(self._own_state(node).model_copy(update={"restarted_at": int(time.time())})),
            )
        )

    def release(self) -> None:
        """Make the node as schedulable as before; no-op if the cordon was taken over.

        Raises:
            WorkError: the cluster does not respond.
        """
        uncordon_node(self._cluster, self._name, lambda state: state.attempt_id == self._attempt_id)

    def _next_state(self, node: V1Node) -> CordonState:
        state = cordon_state_of(node)
        if state is None:
            if annotation_of(node, REFRESH):
                raise WorkError(
                    ErrorClass.INVALID,
                    f"Node {self._name} has an annotation {REFRESH} that Longshore did not write: check the node, and "
                    f"remove the annotation (kubectl annotate node {self._name} {REFRESH}-).",
                )
            return CordonState(
                job_id=self._job_id,
                attempt_id=self._attempt_id,
                boot_id=boot_id_of(node),
                cordoned_before=is_cordoned(node),
            )
        if state.job_id != self._job_id:
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"Node {self._name} is refreshed by the job {state.job_id}. If that job does not exist any more: "
                f"kubectl annotate node {self._name} {REFRESH}- and kubectl uncordon {self._name}.",
            )
        # If somebody uncordoned the node meanwhile, it is to be schedulable at the end.
        cordoned_before = state.cordoned_before and is_cordoned(node)
        return state.model_copy(update={"attempt_id": self._attempt_id, "cordoned_before": cordoned_before})

    def _own_state(self, node: V1Node) -> CordonState:
        state = cordon_state_of(node)
        if state is None or state.attempt_id != self._attempt_id:
            raise WorkError(
                ErrorClass.TRANSIENT, f"The cordon of node {self._name} was taken over or removed by somebody else."
            )
        return state


def cordon_state_of(node: V1Node) -> CordonState | None:
    """Return the state in a node's annotation; None if there is none, or it cannot be parsed."""
    try:
        return CordonState.model_validate_json(annotation_of(node, REFRESH))
    except ValidationError:
        return None


def uncordon_node(cluster: Cluster, name: str, is_meant: Callable[[CordonState], bool]) -> None:
    """Make a node as schedulable as before and remove the annotation, in one step; no-op if the node does not exist.

    Nothing changes unless `is_meant` accepts the node's state.

    Raises:
        WorkError: the cluster does not respond.
    """

    def uncordon(node: V1Node) -> dict[str, Any] | None:
        state = cordon_state_of(node)
        if state is None or not is_meant(state):
            return None
        return {
            "metadata": {"annotations": {REFRESH: None}},
            **({} if state.cordoned_before else {"spec": {"unschedulable": None}}),
        }

    try:
        change_node(cluster, name, uncordon)
    except WorkError as error:
        if error.error_class != ErrorClass.NOT_FOUND:
            raise


def _annotate(state: CordonState) -> dict[str, Any]:
    return {"metadata": {"annotations": {REFRESH: state.model_dump_json(by_alias=True, exclude_defaults=True)}}}
