"""The status of every push: one row per (version, registry), and the history of what it overwrote.

Where in a registry a layer is already, so that a push to another repository there mounts it.
"""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Id, Millis, Reference, Sequence


class PushState(StrEnum):
    """What was observed of a push last."""

    QUEUED = "queued"
    """Waits: for its build, for a worker, or for the next try."""
    IN_PROGRESS = "in-progress"
    """A worker holds the lease."""
    SUCCEEDED = "succeeded"
    """The registry itself answered with the digest that was pushed."""
    FAILED = "failed"
    """Given up; the message says why and what to do."""
    STALLED = "stalled"
    """Reported by the sweep: nobody claims it, its worker is lost, or no byte moves."""
    CANCELLED = "cancelled"
    """Somebody ended it."""


STALLED = "stalled-"
"""How the kinds of `PushEvent` begin that tell of a stall; what follows says which."""


IS_MISSING = "missing_at IS NOT NULL"


class ImagePush(Base):
    """The latest push of a version to a registry, and the last good one."""

    __tablename__ = "image_pushes"
    __table_args__ = (
        UniqueConstraint("version_id", "registry_id"),
        Index("ix_image_pushes_registry_state", "registry_id", "state", "seq"),
        Index("ix_image_pushes_registry_seq", "registry_id", "seq"),
        Index("ix_image_pushes_state_seq", "state", "seq"),
        Index("ix_image_pushes_looked_at", "looked_at"),
        Index("ix_image_pushes_missing", "seq", sqlite_where=text(IS_MISSING), postgresql_where=text(IS_MISSING)),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    version_id: Mapped[str] = mapped_column(String(36))
    registry_id: Mapped[str] = mapped_column(String(36))
    registry_url: Mapped[str] = mapped_column(String(128))
    """The registry's address when the push was asked for; it outlives the registry."""
    job_id: Mapped[str] = mapped_column(String(36))
    generation: Mapped[int] = mapped_column(default=0)
    """Raised by each new push of this version to this registry: half of the fence."""
    claim: Mapped[int] = mapped_column(default=0)
    """The claim of the job that writes here: the other half."""
    state: Mapped[PushState] = mapped_column(String(16), default=PushState.QUEUED)
    message: Mapped[str] = mapped_column(Text, default="")
    image: Mapped[str] = mapped_column(String(512))
    digest: Mapped[str | None] = mapped_column(String(80))
    attempt: Mapped[int] = mapped_column(default=1)
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    layers_done: Mapped[int] = mapped_column(default=0)
    layers_total: Mapped[int] = mapped_column(default=0)
    progressed_at: Mapped[Millis | None]
    """When a byte or a layer moved last."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    started_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]
    last_success_digest: Mapped[str | None] = mapped_column(String(80))
    last_success_image: Mapped[str | None] = mapped_column(String(512))
    last_success_at: Mapped[Millis | None]
    last_success_seq: Mapped[int | None] = mapped_column(BigInteger)
    """The sequence number of the job that asked for it: which good push is the latest goes by the order of asking."""
    looked_at: Mapped[Millis | None]
    """When the registry was asked last for what it confirmed, or confirmed it; nothing: it never did."""
    seen_at: Mapped[Millis | None]
    """When the registry had it last."""
    missing_at: Mapped[Millis | None]
    """When it was first found that the registry does not have it any more; nothing: as far as is known it does."""


class PushEvent(Base):
    """What a row of `image_pushes` said before it was overwritten, and what the sweep reported. Append-only."""

    __tablename__ = "push_events"
    seq: Mapped[Sequence]
    push_id: Mapped[Reference]
    job_id: Mapped[str] = mapped_column(String(36))
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    """`ended`, `superseded`, `overwritten` (after it had ended), `retry`, `stalled-unclaimed`, `stalled-lost`,
    `stalled-no-progress`, `missing` (the last good image is gone from the registry) or `found` (it is there again)."""
    state: Mapped[PushState] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[CreatedAt]


class PushTally(Base):
    """How many events of one kind and state the history holds, up to a number: it only grows, so it is counted once."""

    __tablename__ = "push_tallies"
    __table_args__ = (UniqueConstraint("kind", "state"),)

    seq: Mapped[Sequence]
    kind: Mapped[str] = mapped_column(String(32))
    """A kind of `PushEvent`; empty in the one row that says up to where all were counted."""
    state: Mapped[str] = mapped_column(String(16))
    number: Mapped[int] = mapped_column(BigInteger)
    """How many; in the row without a kind, the `seq` of the last event that was counted."""


class RegistryBlob(Base):
    """A large layer and the repository it was pushed to last: a hint, since the registry may have lost it."""

    __tablename__ = "registry_blobs"
    __table_args__ = (UniqueConstraint("registry_id", "digest"),)

    seq: Mapped[Sequence]
    registry_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(80))
    repository: Mapped[str] = mapped_column(String(255))
    """As the registry itself calls it."""
