"""Tables of pushes: the status per (version, registry), its history, and known blob locations for mounting."""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, IdentifiedBase, Millis, PlainText, Reference


class PushState(StrEnum):
    """The states of a push."""

    QUEUED = "queued"
    """Waits for its build, for a worker, or for the next attempt."""
    IN_PROGRESS = "in-progress"
    """A worker holds the lease of its job."""
    SUCCEEDED = "succeeded"
    """The registry confirmed the digest that was pushed."""
    FAILED = "failed"
    """Not retried any more; `message` has the reason and what to do."""
    STALLED = "stalled"
    """Reported by the sweep: unclaimed, its worker is lost, or no progress."""
    CANCELLED = "cancelled"


STALLED = "stalled-"
"""Prefix of the event kinds that report a stall; the rest is the kind of stall."""


IS_MISSING = "missing_at IS NOT NULL"


class ImagePush(IdentifiedBase):
    """The latest push of a version to a registry, and the last successful one."""

    __tablename__ = "image_pushes"
    __table_args__ = (
        UniqueConstraint("version_id", "registry_id"),
        Index("ix_image_pushes_registry_state", "registry_id", "state", "seq"),
        Index("ix_image_pushes_registry_seq", "registry_id", "seq"),
        Index("ix_image_pushes_state_seq", "state", "seq"),
        Index("ix_image_pushes_looked_at", "looked_at"),
        Index("ix_image_pushes_missing", "seq", sqlite_where=text(IS_MISSING), postgresql_where=text(IS_MISSING)),
    )

    version_id: Mapped[str] = mapped_column(String(36))
    registry_id: Mapped[str] = mapped_column(String(36))
    registry_url: Mapped[str] = mapped_column(String(128))
    """The registry's address when the push was requested. It stays when the registry is deleted."""
    job_id: Mapped[str] = mapped_column(String(36))
    generation: Mapped[int] = mapped_column(default=0)
    """Raised by each new push of this version to this registry. One half of the fence."""
    claim: Mapped[int] = mapped_column(default=0)
    """The claim of the job that may write here. The other half of the fence."""
    state: Mapped[PushState] = mapped_column(String(16), default=PushState.QUEUED)
    message: Mapped[str] = mapped_column(PlainText, default="")
    image: Mapped[str] = mapped_column(String(512))
    digest: Mapped[str | None] = mapped_column(String(80))
    attempt: Mapped[int] = mapped_column(default=1)
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    layers_done: Mapped[int] = mapped_column(default=0)
    layers_total: Mapped[int] = mapped_column(default=0)
    progressed_at: Mapped[Millis | None]
    """Time of the last uploaded byte or layer."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]
    last_success_digest: Mapped[str | None] = mapped_column(String(80))
    last_success_image: Mapped[str | None] = mapped_column(String(512))
    last_success_at: Mapped[Millis | None]
    last_success_seq: Mapped[int | None] = mapped_column(BigInteger)
    """The `seq` of the job that requested it. The latest successful push is the one that was requested last."""
    looked_at: Mapped[Millis | None]
    """When the registry was last asked for the image, or confirmed it; None: it never confirmed one."""
    seen_at: Mapped[Millis | None]
    missing_at: Mapped[Millis | None]
    """When the image was first found to be missing from the registry; None: it is there as far as known."""


class PushEvent(Base):
    """A former state of a row of `image_pushes`, or a report of the sweep. Append-only."""

    __tablename__ = "push_events"
    push_id: Mapped[Reference]
    job_id: Mapped[str] = mapped_column(String(36))
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    """`ended`, `superseded`, `overwritten` (after it had ended), `retry`, `stalled-unclaimed`, `stalled-lost`,
    `stalled-no-progress`, `missing` (the registry lost the last good image) or `found` (it is there again)."""
    state: Mapped[PushState] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(PlainText, default="")
    digest: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[CreatedAt]


class PushTally(Base):
    """The number of events of one kind and state up to some `seq`. The history only grows, so each is counted once."""

    __tablename__ = "push_tallies"
    __table_args__ = (UniqueConstraint("kind", "state"),)

    kind: Mapped[str] = mapped_column(String(32))
    """A kind of `PushEvent`; empty in the one row that holds the `seq` up to which events were counted."""
    state: Mapped[str] = mapped_column(String(16))
    number: Mapped[int] = mapped_column(BigInteger)
    """The number of events; in the row without a kind, the `seq` of the last counted event."""


class RegistryBlob(Base):
    """The repository that a large layer was last pushed to. Only a hint: the registry may have lost the layer."""

    __tablename__ = "registry_blobs"
    __table_args__ = (UniqueConstraint("registry_id", "digest"),)

    registry_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(80))
    repository: Mapped[str] = mapped_column(String(255))
