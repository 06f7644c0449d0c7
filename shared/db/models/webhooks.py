"""Tables of webhooks and their deliveries (the outbox)."""

from enum import StrEnum

from sqlalchemy import JSON, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.clock import now_ms
from shared.db.models.base import CreatedAt, IdentifiedBase, Millis, PlainText


class Webhook(IdentifiedBase):
    """A URL that receives events. A deleted webhook keeps its row for its deliveries."""

    __tablename__ = "webhooks"

    name: Mapped[str | None] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(String(1024))
    secret: Mapped[str] = mapped_column(Text)
    """The encrypted signing secret."""
    events: Mapped[list[str]] = mapped_column(JSON)
    """Patterns of event types, for example `push.failed` or `push.*`."""
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(PlainText)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt] = mapped_column(onupdate=now_ms())
    deleted_at: Mapped[Millis | None]


class DeliveryState(StrEnum):
    """The states of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    """The target responded with a 2xx status."""
    FAILED = "failed"


class WebhookDelivery(IdentifiedBase):
    """One event for one webhook. Written in the transaction of the event, sent afterwards.

    `id` is also that of the event: the same in every attempt, so that the receiver can recognise repeats.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_state_next", "state", "next_attempt_at"),
        Index("ix_webhook_deliveries_webhook_seq", "webhook_id", "seq"),
    )

    webhook_id: Mapped[str] = mapped_column(String(36))
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    """The CloudEvent as JSON: the same bytes in every attempt."""
    state: Mapped[DeliveryState] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[Millis | None]
    """Not due before this time. While it is being sent: the time when another worker may send it."""
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(PlainText)
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Millis | None]
