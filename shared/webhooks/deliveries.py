"""Deliveries: which are due, who sends them, and what became of them. Every UPDATE repeats what it saw.

Where webhooks may go: the form of their addresses, and the networks that they may be in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import DeliveryState, Webhook, WebhookDelivery
from shared.net.address_rules import ForbiddenAddressError, is_loopback_host, webhook_networks
from shared.net.origins import origin_of
from shared.settings import settings

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Due:
    """A delivery that is this sender's for a while, and where it goes."""

    delivery: WebhookDelivery
    webhook: Webhook

    @property
    def tries(self) -> int:
        """How often it was sent before."""
        return self.delivery.attempts


@dataclass(frozen=True)
class Outcome:
    """What came of one try."""

    status: int | None
    """What the target answered; None: nothing."""
    error: str | None
    """Why it is not delivered, in a sentence; None: it is."""
    retry_after: float | None = None
    """Seconds, where the target named a time."""
    gone: bool = False
    """The target wants to hear no more (410)."""
    final: bool = False
    """Another try would end the same way."""


def take_due(session: Session, *, limit: int, hold_seconds: float) -> list[Due]:
    """Take due deliveries, the oldest first; for so long nobody else takes them."""
    found = session.execute(
        select(WebhookDelivery, Webhook)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.state == DeliveryState.PENDING, WebhookDelivery.next_attempt_at <= now_ms())
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.seq)
        .limit(limit)
    ).all()
    return [Due(delivery, webhook) for delivery, webhook in found if _take(session, delivery, hold_seconds)]


def _take(session: Session, delivery: WebhookDelivery, hold_seconds: float) -> bool:
    taken = session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.seq == delivery.seq,
            WebhookDelivery.attempts == delivery.attempts,
            WebhookDelivery.next_attempt_at == delivery.next_attempt_at,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .values(attempts=WebhookDelivery.attempts + 1, next_attempt_at=now_ms() + int(hold_seconds * 1000))
        .returning(WebhookDelivery.seq)
        .execution_options(synchronize_session=False)
    )
    return taken.first() is not None


def write_outcome(session: Session, due: Due, outcome: Outcome, *, delays: Sequence[float]) -> None:
    """Write what came of a try: delivered, to be sent again, or given up."""
    values: dict[str, object] = {"last_status": outcome.status, "last_error": outcome.error}
    if outcome.error is None:
        values |= {"state": DeliveryState.DELIVERED, "finished_at": now_ms(), "next_attempt_at": None}
    elif outcome.gone or outcome.final or due.tries >= len(delays):
        values |= {"state": DeliveryState.FAILED, "finished_at": now_ms(), "next_attempt_at": None}
    else:
        delay = delays[due.tries] if outcome.retry_after is None else max(outcome.retry_after, delays[0])
        values["next_attempt_at"] = now_ms() + int(delay * 1000)
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.seq == due.delivery.seq,
            WebhookDelivery.attempts == due.tries + 1,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .values(values)
        .execution_options(synchronize_session=False)
    )
    if outcome.gone:
        _disable(session, due.webhook.id)


def _disable(session: Session, webhook_id: str) -> None:
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.enabled)
        .values(enabled=False, disabled_reason="Its target answered 410 (gone).")
        .execution_options(synchronize_session=False)
    )
    give_up_pending(session, webhook_id, "The webhook was disabled: its target answered 410 (gone).")


def give_up_pending(session: Session, webhook_id: str, reason: str) -> None:
    """Send nothing more of what waits for a webhook."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.state == DeliveryState.PENDING)
        .values(state=DeliveryState.FAILED, last_error=reason, finished_at=now_ms(), next_attempt_at=None)
        .execution_options(synchronize_session=False)
    )


def send_again(session: Session, delivery: WebhookDelivery) -> None:
    """Have a delivery that ended sent once more, as if it had never been tried."""
    delivery.state, delivery.attempts, delivery.finished_at = DeliveryState.PENDING, 0, None
    delivery.next_attempt_at = session.scalars(select(now_ms())).one()
    session.flush()


def forget_old(session: Session, *, days: float) -> None:
    """Remove deliveries that ended so long ago."""
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.state != DeliveryState.PENDING, WebhookDelivery.finished_at < now_ms() - int(days * DAY_MS)
        )
    )


class InvalidTargetError(ValueError):
    """An address that no webhook may have; the text is a sentence that never repeats a password."""


def check_target(url: str) -> None:
    """Refuse an address that cannot be told of anything here. It resolves the name: not within a transaction.

    Raises:
        InvalidTargetError: with a sentence.
    """
    if origin_of(url) is None or "#" in url:
        raise InvalidTargetError(
            "A webhook's url is an absolute https:// URL without user, password and fragment, in plain ASCII."
        )
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not (settings().webhook_allow_http or is_loopback_host(host)):
        raise InvalidTargetError("A webhook's url begins with https:// (LONGSHORE_WEBHOOK_ALLOW_HTTP).")
    try:
        webhook_networks().check_new_host(host, parts.port or 443)
    except ForbiddenAddressError as refusal:
        raise InvalidTargetError(str(refusal)) from None
