"""The interface of a node pool: list, plan, refresh and uncordon worker nodes. A pool keeps no state itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.settings import settings


@dataclass(frozen=True)
class DrainPlan:
    """What draining a node would do. Pods and budgets are named NAMESPACE/NAME.

    The pods in `evicted` would be evicted; those in `stay` would stay: pods of DaemonSets, and static pods (mirror
    pods). The disruption budgets in `waits_for` allow no eviction at the moment. No controller would replace the pods
    in `refused_for`: with one of them the node is not drained.
    """

    evicted: tuple[str, ...]
    stay: tuple[str, ...]
    waits_for: tuple[str, ...] = ()
    refused_for: tuple[str, ...] = ()


RestartHook = Callable[[str], None]
"""Requests the restart of the node with this name. Raises WorkError if it cannot be requested."""


class NodePool(Protocol):
    """The worker nodes. Every method is idempotent; after a lost worker, another one resumes by calling it again."""

    def node_names(self) -> list[str]:
        """Return the sorted names of the nodes that have the labels of worker nodes.

        Raises:
            WorkError: the cluster does not respond, or refuses (both unavailable).
        """

    def plan(self, name: str) -> DrainPlan:
        """Return what draining a node would do; change nothing.

        Raises:
            WorkError: the node does not exist (not_found), or the cluster does not respond.
        """

    def refresh(
        self, name: str, job_id: str, restart: RestartHook | None, report: Callable[[str], None], stop: CancelToken
    ) -> None:
        """Cordon a node, evict its pods, restart it, wait until it is ready, and uncordon it.

        The job's id is written to the node with the cordon, so that another worker can resume the refresh. A node that
        somebody else had cordoned stays cordoned. `report` gets each step in a sentence, and at each poll what is
        waited for. When this returns or raises, the node is as schedulable as before, unless the cluster does not
        respond.

        Raises:
            WorkCancelledError: the refresh was cancelled.
            WorkError: the node cannot be refreshed, or another worker took over; the message says why and what to do.
        """

    def uncordon(self, job_id: str) -> list[str]:
        """Uncordon every node that the job still has cordoned; return their names.

        Raises:
            WorkError: the cluster does not respond.
        """


@cache
def node_pool() -> NodePool:
    """Return the nodes of the cluster.

    Raises:
        WorkError: algorithms run on one Docker machine (invalid), or no cluster is configured (unavailable).
    """
    if settings().serving == "docker":
        raise WorkError(
            ErrorClass.INVALID,
            "There are no nodes when algorithms run on one Docker machine: refresh with what=runners instead.",
        )
    # The client of Kubernetes takes a second to load.
    from workers.kubernetes.cluster import Cluster  # noqa: PLC0415
    from workers.nodes.kubernetes.node_pool import KubernetesNodePool  # noqa: PLC0415

    return KubernetesNodePool(settings(), Cluster.connect(settings().kubernetes_namespace))
