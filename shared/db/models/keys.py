"""Owners and their API keys.

The audit trail: who did what to registries, keys, pushes and what else an operator answers for. Append-only.

Idempotency keys: the same key and caller within 24 hours gives the same job back.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Document, Id, Millis, Sequence


class KeyKind(StrEnum):
    """What a key may do, before its permissions narrow it."""

    ADMIN = "PlatformAdminKey"
    """Everything. `ManagementKey` is an old name of it."""
    ALGORITHM = "AlgorithmKey"
    """Manages and calls the algorithms of its owner, calls everybody's public ones."""


class Owner(Base):
    """A name under which algorithms live. Made by an administrator's first key for it."""

    __tablename__ = "owners"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    username: Mapped[str] = mapped_column(String(64), unique=True)
    image_name: Mapped[str] = mapped_column(String(64), unique=True)
    """The name as image references spell it: `Foo` and `foo` would write into one repository."""
    served_at: Mapped[Millis | None]
    """When a push of this owner was claimed last: whose turn it is goes by this."""
    created_at: Mapped[CreatedAt]


class ApiKey(Base):
    """A key, of which only the digest is kept; revoked ones stay as rows."""

    __tablename__ = "api_keys"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    owner: Mapped[str] = mapped_column(String(64), index=True)
    label: Mapped[str] = mapped_column(String(100))
    kind: Mapped[KeyKind] = mapped_column(String(32))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret, which has 256 random bits: nothing slower is needed."""
    mask: Mapped[str] = mapped_column(String(32))
    permissions: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[Millis | None]


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


class IdempotencyKey(Base):
    """One use of an `Idempotency-Key` header."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("caller", "key"),)

    seq: Mapped[Sequence]
    caller: Mapped[str] = mapped_column(String(36))
    """The API key's id."""
    key: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what the header said."""
    request: Mapped[str] = mapped_column(String(160))
    """A keyed digest of method, path and body: bodies hold passwords, a bare hash would let them be guessed."""
    job_id: Mapped[str] = mapped_column(String(36))
    created_at: Mapped[CreatedAt]
