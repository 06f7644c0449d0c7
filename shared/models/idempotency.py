"""Idempotency keys: the same key and caller within 24 hours gives the same job back."""

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, CreatedAt, Sequence


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
