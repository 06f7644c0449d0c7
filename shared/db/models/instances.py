"""Servings: images of versions that run for their callers, or are about to, or did.

Calls whose callers did not wait (`output=void`), and how they ended.
"""

from enum import StrEnum

from sqlalchemy import Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Id, Millis, Sequence


class InstanceState(StrEnum):
    """How far the running of an image is."""

    PENDING = "pending"
    """A call waits for it; its job starts it."""
    READY = "ready"
    """Takes calls."""
    DRAINING = "draining"
    """Takes no new calls; those that it has go on to their end."""
    STOPPED = "stopped"
    """Ended: nobody called for a while, another image took its place, it died, or it was wanted no more."""
    FAILED = "failed"
    """Could not be started; the message says why."""


SERVES = "state IN ('pending', 'ready')"
RUNS = "state IN ('pending', 'ready', 'draining')"


class Instance(Base):
    """One image of one version, run under one kind of network access."""

    __tablename__ = "instances"
    __table_args__ = (
        Index(
            "uq_instances_live",
            "version_id",
            "image",
            "network",
            unique=True,
            sqlite_where=text(SERVES),
            postgresql_where=text(SERVES),
        ),
        Index("ix_instances_running", "state", "seq", sqlite_where=text(RUNS), postgresql_where=text(RUNS)),
        Index("ix_instances_version_seq", "version_id", "seq"),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    owner: Mapped[str] = mapped_column(String(64))
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[str] = mapped_column(String(36))
    job_id: Mapped[str] = mapped_column(String(36))
    """The job that starts it."""
    registry_id: Mapped[str | None] = mapped_column(String(36))
    """Where the image is pulled from; nothing: the platform's own store."""
    image: Mapped[str] = mapped_column(String(512))
    """Its reference by digest."""
    digest: Mapped[str] = mapped_column(String(80))
    network: Mapped[str] = mapped_column(String(16))
    """`full` or `isolated`, as the algorithm's settings said."""
    state: Mapped[InstanceState] = mapped_column(String(16), default=InstanceState.PENDING)
    message: Mapped[str] = mapped_column(Text, default="")
    endpoint: Mapped[str | None] = mapped_column(String(255))
    """Where calls go once it is ready: `unix:ID` (a socket in the serving directory) or `http://HOST:PORT`."""
    runtime_ref: Mapped[str | None] = mapped_column(String(128))
    """What runs it: a container's id, or the name of a Deployment."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    ready_at: Mapped[Millis | None]
    draining_at: Mapped[Millis | None]
    ended_at: Mapped[Millis | None]


class CallState(StrEnum):
    """How far a call is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The algorithm answered with an error, or was not reached; the message says which."""
    LOST = "lost"
    """The process that made the call went away, so its end is not known. It is not made again: that may do harm."""


class CallRequest(Base):
    """One such call. Its input and its result are not kept."""

    __tablename__ = "call_requests"
    __table_args__ = (Index("ix_call_requests_deadline", "deadline_at"),)

    seq: Mapped[Sequence]
    id: Mapped[Id]
    caller: Mapped[str] = mapped_column(String(64))
    """The owner whose key called."""
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[CallState] = mapped_column(String(16), default=CallState.RUNNING)
    error_type: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int | None]
    """How long the algorithm had it."""
    created_at: Mapped[CreatedAt]
    deadline_at: Mapped[Millis]
    """Running beyond this time, it is lost."""
    ended_at: Mapped[Millis | None]
