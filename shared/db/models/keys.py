"""Tables of owners, their API keys, the audit trail and used idempotency keys."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base, CreatedAt, Document, IdentifiedBase, Millis


class KeyKind(StrEnum):
    """The kinds of API keys. Permissions can narrow what a kind allows."""

    ADMIN = "PlatformAdminKey"
    """Allows everything. `ManagementKey` is an old name of it."""
    ALGORITHM = "AlgorithmKey"
    """Manages and calls the algorithms of its owner, and calls public algorithms of others."""


class Owner(IdentifiedBase):
    """An owner of algorithms. Created when an administrator makes the first key for the name."""

    __tablename__ = "owners"

    username: Mapped[str] = mapped_column(String(64), unique=True)
    image_name: Mapped[str] = mapped_column(String(64), unique=True)
    """The name in the form that image references allow. Unique, because `Foo` and `foo` would share a repository."""
    served_at: Mapped[Millis | None]
    """When a push of this owner was claimed last; the fair queue sorts owners by it."""
    created_at: Mapped[CreatedAt]


class ApiKey(IdentifiedBase):
    """An API key. Only its digest is stored; a revoked key keeps its row."""

    __tablename__ = "api_keys"

    owner: Mapped[str] = mapped_column(String(64), index=True)
    label: Mapped[str] = mapped_column(String(100))
    kind: Mapped[KeyKind] = mapped_column(String(32))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret, which has 149 random bits: nothing slower is needed."""
    mask: Mapped[str] = mapped_column(String(32))
    permissions: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[Millis | None]


class AuditEvent(IdentifiedBase):
    """An entry of the audit trail, written in the transaction of the change: neither exists without the other."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_action_seq", "action", "seq"),
        Index("ix_audit_events_actor_seq", "actor", "seq"),
        Index("ix_audit_events_target_seq", "target_id", "seq"),
        Index("ix_audit_events_created", "created_at"),
    )

    created_at: Mapped[CreatedAt]
    actor: Mapped[str] = mapped_column(String(64))
    """The owner of the key that was used, or `cli` for a command on the database."""
    key_id: Mapped[str | None] = mapped_column(String(36))
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(48))
    """The change, for example `registry.create`."""
    target_id: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[Document]
    """Further fields. Never a secret."""


class IdempotencyKey(Base):
    """A used `Idempotency-Key` header. The same key and caller get the same job for 24 hours."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("caller", "key"),)

    caller: Mapped[str] = mapped_column(String(36))
    """The id of the API key."""
    key: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the header value."""
    request: Mapped[str] = mapped_column(String(160))
    """A keyed digest of method, path and body. Bodies contain passwords, which a plain hash would allow to guess."""
    job_id: Mapped[str] = mapped_column(String(36))
    created_at: Mapped[CreatedAt]
