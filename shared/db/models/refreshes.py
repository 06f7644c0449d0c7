"""The table of refreshes, which make nodes or running instances pull their images again."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Document, Millis, Sequence


class RefreshKind(StrEnum):
    """What a refresh is applied to."""

    NODES = "nodes"
    """Nodes of a cluster: drained, restarted and uncordoned, one after the other."""
    RUNNERS = "runners"
    """Running instances: restarted, so that the registry is asked again."""


class StepState(StrEnum):
    """The states of one step (a node or an instance) of a refresh."""

    WAITING = "waiting"
    """Not started yet, or to be repeated."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It could not be done, or the job was ended; the step has the reason."""
    SKIPPED = "skipped"
    """There was nothing to do: the node or instance was gone, or it was a dry run."""


class Refresh(Base):
    """The scope and progress of a refresh. Its state is that of its job."""

    __tablename__ = "refreshes"

    seq: Mapped[Sequence]
    job_id: Mapped[str] = mapped_column(String(36), unique=True)
    what: Mapped[RefreshKind] = mapped_column(String(16))
    options: Mapped[Document]
    """The request, as `shared.refreshes.RefreshOptions`."""
    progress: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """One `shared.refreshes.RefreshStep` per node or instance, in order. Empty until a worker has listed them."""
    uncordoned_at: Mapped[Millis | None]
    """When it was confirmed, after the job had ended, that it left no node cordoned."""
    created_at: Mapped[CreatedAt]
