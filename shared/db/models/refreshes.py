"""Refreshes: orders to have worker nodes, or what runs on them, pull afresh; and how far each is."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Document, Millis, Sequence


class RefreshKind(StrEnum):
    """What pulls afresh."""

    NODES = "nodes"
    """Worker nodes of a cluster: emptied, restarted and put back, one by one."""
    RUNNERS = "runners"
    """What runs of versions: started anew, so that the registry is asked again."""


class StepState(StrEnum):
    """How far the refresh of one node or runner is."""

    WAITING = "waiting"
    """Its turn has not come, or comes again."""
    RUNNING = "running"
    """A worker is at it."""
    DONE = "done"
    FAILED = "failed"
    """It could not be done, or somebody ended the job meanwhile; the step says which."""
    SKIPPED = "skipped"
    """There was nothing to do: it was gone, or the order was to change nothing."""


class Refresh(Base):
    """What a refresh is about. Its state is that of its job."""

    __tablename__ = "refreshes"

    seq: Mapped[Sequence]
    job_id: Mapped[str] = mapped_column(String(36), unique=True)
    what: Mapped[RefreshKind] = mapped_column(String(16))
    options: Mapped[Document]
    """What was ordered, as `shared.refreshes.RefreshOptions` has it."""
    progress: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """One entry for each node or runner, in the order in which they are done (`shared.refreshes`).

    Empty until a worker has looked which there are.
    """
    uncordoned_at: Mapped[Millis | None]
    """When it was seen that no node is cordoned by it any more, once its job had ended."""
    created_at: Mapped[CreatedAt]
