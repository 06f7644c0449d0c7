"""Tables of instances (running images of versions), of asynchronous calls (`output=void`), and of errors of calls."""

from enum import StrEnum

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import CreatedAt, IdentifiedBase, Millis, PlainText, Reference


class InstanceState(StrEnum):
    """The states of an instance."""

    PENDING = "pending"
    """Requested by a call; its `serve` job starts it."""
    READY = "ready"
    DRAINING = "draining"
    """Accepts no new calls; running calls are completed."""
    STOPPED = "stopped"
    """Ended: it was idle, was replaced, died, or was not needed any more."""
    FAILED = "failed"
    """Could not be started; `message` has the reason."""


SERVES = "state IN ('pending', 'ready')"
RUNS = "state IN ('pending', 'ready', 'draining')"


class Instance(IdentifiedBase):
    """A running image of one version with one kind of network access."""

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

    owner: Mapped[str] = mapped_column(String(64))
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[str] = mapped_column(String(36))
    job_id: Mapped[str] = mapped_column(String(36))
    registry_id: Mapped[str | None] = mapped_column(String(36))
    """The registry that the image is pulled from; None: the platform's own store."""
    image: Mapped[str] = mapped_column(String(512))
    """The image reference by digest."""
    digest: Mapped[str] = mapped_column(String(80))
    network: Mapped[str] = mapped_column(String(16))
    """`full` or `isolated`, from the algorithm's settings."""
    state: Mapped[InstanceState] = mapped_column(String(16), default=InstanceState.PENDING)
    message: Mapped[str] = mapped_column(PlainText, default="")
    endpoint: Mapped[str | None] = mapped_column(String(255))
    """The address for calls once it is ready: `unix:ID` (a socket in the serving directory) or `http://HOST:PORT`."""
    runtime_ref: Mapped[str | None] = mapped_column(String(128))
    """The id of the container, or the name of the Deployment, that runs it."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    ready_at: Mapped[Millis | None]
    draining_at: Mapped[Millis | None]
    ended_at: Mapped[Millis | None]


class CallState(StrEnum):
    """The states of an asynchronous call."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The algorithm returned an error, or was not reached; `message` says which."""
    LOST = "lost"
    """The process that made the call died: the result is unknown. It is not repeated, as it may not be idempotent."""


class CallRequest(IdentifiedBase):
    """An asynchronous call. Its input and its result are not stored."""

    __tablename__ = "call_requests"
    __table_args__ = (Index("ix_call_requests_deadline", "deadline_at"),)

    caller: Mapped[str] = mapped_column(String(64))
    """The owner of the key that was used."""
    algorithm_id: Mapped[str] = mapped_column(String(36))
    version_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[CallState] = mapped_column(String(16), default=CallState.RUNNING)
    error_type: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(PlainText)
    duration_ms: Mapped[int | None]
    created_at: Mapped[CreatedAt]
    deadline_at: Mapped[Millis]
    """A call that still runs after this time is lost."""
    ended_at: Mapped[Millis | None]


class CallError(IdentifiedBase):
    """An error that an algorithm returned for a call. Only the last ones of each algorithm are kept."""

    __tablename__ = "call_errors"
    __table_args__ = (Index("ix_call_errors_owner_seq", "owner", "seq"),)

    owner: Mapped[str] = mapped_column(String(64))
    """The owner of the algorithm."""
    algorithm_id: Mapped[Reference]
    version_id: Mapped[str] = mapped_column(String(36))
    logs: Mapped[str] = mapped_column(PlainText)
    """The message and the stack trace, without the input of the call."""
    created_at: Mapped[CreatedAt]
