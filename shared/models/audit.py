"""The audit trail: who did what to registries, keys, pushes and what else an operator answers for. Append-only."""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Document, Id, Sequence


class AuditEvent(Base):
    """One thing that somebody did. Written in the transaction that did it, so neither is there without the other."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_action_seq", "action", "seq"),
        Index("ix_audit_events_actor_seq", "actor", "seq"),
        Index("ix_audit_events_target_seq", "target_id", "seq"),
        Index("ix_audit_events_created", "created_at"),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    actor: Mapped[str] = mapped_column(String(64))
    """The owner whose key was used, or `cli` for a command run beside the database."""
    key_id: Mapped[str | None] = mapped_column(String(36))
    address: Mapped[str | None] = mapped_column(String(64))
    """Where the request came from."""
    request_id: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(48))
    """What was done, as `registry.create`."""
    target_id: Mapped[str] = mapped_column(String(64))
    """The id of what it was done to."""
    owner: Mapped[str | None] = mapped_column(String(64))
    """Whose it is, where it belongs to an owner."""
    detail: Mapped[Document]
    """What else one wants to know; never a secret."""
