"""What a refresh was ordered with, as its row keeps it."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from shared.models import RefreshKind

PLACE_OF_NODES = "nodes"
"""The place (`Job.lock_name`) of every refresh that changes nodes: two at once would empty two nodes at once."""


class RestartKind(StrEnum):
    """How a node is restarted once it is empty."""

    COMMAND = "command"
    """By a command on the worker (LONGSHORE_NODE_RESTART_COMMAND)."""
    WEBHOOK = "webhook"
    """By whoever answers at LONGSHORE_NODE_RESTART_URL."""
    NONE = "none"
    """Not at all: emptying it is enough."""


@dataclass(frozen=True)
class RefreshOptions:
    """Which nodes or runners are refreshed, and how."""

    what: RefreshKind = RefreshKind.NODES
    nodes: tuple[str, ...] = ()
    """Names; none: every node with the labels of worker nodes."""
    restart: RestartKind | None = None
    """None: by whichever of them the settings of the worker name."""
    version_id: str | None = None
    """Only what runs of this version."""
    registry_id: str | None = None
    """Only what was pulled from this registry."""
    dry_run: bool = False
    """Find out what would happen, and change nothing."""

    def as_document(self) -> dict[str, Any]:
        """As `Refresh.options` holds it."""
        return asdict(self)

    @classmethod
    def read(cls, document: dict[str, Any]) -> "RefreshOptions":
        """What `as_document` wrote."""
        restart = document["restart"]
        return cls(
            **{
                **document,
                "what": RefreshKind(document["what"]),
                "nodes": tuple(document["nodes"]),
                "restart": None if restart is None else RestartKind(restart),
            }
        )
