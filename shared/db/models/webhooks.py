"""Webhooks: who wants to be told of what, and what is still to be told."""

from enum import StrEnum

from sqlalchemy import JSON, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import Base, CreatedAt, Id, Millis, Sequence


class Webhook(Base):
    """An address that is told of events. Deleted ones stay as rows: their deliveries name them."""

    __tablename__ = "webhooks"

    seq: Mapped[Sequence]
    id: Mapped[Id]
    name: Mapped[str | None] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(String(1024))
    secret: Mapped[str] = mapped_column(Text)
    """Sealed: what its deliveries are signed with."""
    events: Mapped[list[str]] = mapped_column(JSON)
    """Patterns of event types, as `push.failed` or `push.*`."""
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    """Why Longshore disabled it itself (its target said that it is gone)."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]


class DeliveryState(StrEnum):
    """How far a delivery is."""

    PENDING = "pending"
    """To be sent, or to be sent again."""
    DELIVERED = "delivered"
    """Its target answered with a status of success."""
    FAILED = "failed"
    """Given up after its last try."""


class WebhookDelivery(Base):
    """One event for one webhook: written in the transaction that made the event, sent afterwards."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_state_next", "state", "next_attempt_at"),
        Index("ix_webhook_deliveries_webhook_seq", "webhook_id", "seq"),
    )

    seq: Mapped[Sequence]
    id: Mapped[Id]
    """Also the event's id: the same in every try, so that its receiver can tell repeats."""
    webhook_id: Mapped[str] = mapped_column(String(36))
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    """The CloudEvent as JSON: the same bytes in every try."""
    state: Mapped[DeliveryState] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[Millis | None]
    """Not before this time; while one sends it, the time at which another may."""
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Millis | None]
