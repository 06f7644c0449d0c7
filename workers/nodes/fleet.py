"""Worker nodes that are made to pull afresh, one by one. What runs them keeps the truth; this keeps no state.

The worker nodes of this installation, as its settings choose them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.settings import settings


@dataclass(frozen=True)
class Node:
    """One worker node, as it is now."""

    name: str
    ready: bool
    cordoned: bool
    """It takes no new pods, whoever said so."""


@dataclass(frozen=True)
class Plan:
    """What emptying a node would do."""

    evicted: tuple[str, ...]
    """NAMESPACE/NAME of the pods that would go."""
    stay: tuple[str, ...]
    """NAMESPACE/NAME of the pods that stay: of DaemonSets, and those that the node itself keeps (mirror pods)."""
    waits_for: tuple[str, ...] = ()
    """NAMESPACE/NAME of the disruption budgets that allow no eviction at the moment."""
    refused_for: tuple[str, ...] = ()
    """NAMESPACE/NAME of the pods that nothing would bring back: as long as there is one, the node is not emptied."""


Restart = Callable[[str], None]
"""The operator's hook: restarts the node of this name; returns once that was asked for.

Raises:
    WorkError: it could not be asked for.
"""


class Fleet(Protocol):
    """The worker nodes. Every method can be called again, by whichever worker, and goes on where the last one was."""

    def nodes(self) -> list[Node]:
        """Those with the labels of worker nodes, by name.

        Raises:
            WorkError: the cluster does not answer, or refuses (both unavailable).
        """

    def plan(self, name: str) -> Plan:
        """What refreshing this node would do; changes nothing.

        Raises:
            WorkError: the node is gone (not_found), or the cluster does not answer.
        """

    def refresh(
        self, name: str, mark: str, restart: Restart | None, say: Callable[[str], None], stop: CancelToken
    ) -> None:
        """Cordon a node, evict its pods, have it restarted, wait until it is ready, and uncordon it.

        `mark` (a job's id) is written to the node with the cordon, so that whoever goes on knows whose it is; a node
        that somebody else had cordoned stays cordoned. `say` is told each step in a sentence, and at each look again
        what is waited for. When this returns or raises, the node is as schedulable as it was before, unless the cluster
        itself does not answer.

        Raises:
            Stopped: the stop was asked for.
            WorkError: it cannot be done, or somebody else goes on with it; the message says why and what to do.
        """

    def release(self, mark: str) -> list[str]:
        """Uncordon each node that still carries the mark, whatever became of who cordoned it; gives their names.

        Raises:
            WorkError: the cluster does not answer.
        """


@cache
def fleet() -> Fleet:
    """The nodes of the cluster.

    Raises:
        WorkError: algorithms run on one Docker machine, which has none (invalid).
    """
    if settings().serving == "docker":
        message = "There are no nodes where algorithms run on one Docker machine: order it with what=runners."
        raise WorkError(ErrorClass.INVALID, message)
    # Here, because its client takes a second to load.
    from workers.nodes.kubernetes.fleet import KubernetesFleet  # noqa: PLC0415

    return KubernetesFleet(settings())
