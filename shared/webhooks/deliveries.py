"""Deliveries of webhooks: which are due, their outcomes, and where they may go.

Every UPDATE repeats the values that were read, so that of two senders only one changes a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import DeliveryState, Webhook, WebhookDelivery
from shared.errors import InvalidValueError
from shared.net.address_rules import ForbiddenAddressError, is_loopback_host, webhook_networks
from shared.net.origins import origin_of
from shared.settings import settings

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class DueDelivery:
    """A delivery that this sender holds for a while, and its webhook."""

    delivery: WebhookDelivery
    webhook: Webhook


@dataclass(frozen=True)
class Outcome:
    """Outcome of one attempt."""

    status: int | None
    """HTTP status of the response; None: there was none."""
    error: str | None
    """Why it was not delivered, as a sentence; None: it was."""
    retry_after: float | None = None
    """Seconds, where the target gave a time."""
    is_gone: bool = False
    """Whether the target wants no more deliveries (410)."""
    is_final: bool = False
    """Whether another attempt would end the same way."""


def take_due_deliveries(session: Session, *, limit: int, hold_seconds: float) -> list[DueDelivery]:
    """Take due deliveries, the oldest first; no other sender gets them for `hold_seconds`."""
    due = session.execute(
        select(WebhookDelivery, Webhook)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.state == DeliveryState.PENDING, WebhookDelivery.next_attempt_at <= now_ms())
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.seq)
        .limit(limit)
    ).all()
    return [DueDelivery(delivery, webhook) for delivery, webhook in due if _take(session, delivery, hold_seconds)]


def _take(session: Session, delivery: WebhookDelivery, hold_seconds: float) -> bool:
    return (
        session.execute(
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
        ).first()
        is not None
    )


def write_outcome(session: Session, due: DueDelivery, outcome: Outcome, *, delays: Sequence[float]) -> None:
    earlier_attempts = due.delivery.attempts
    values: dict[str, object] = {"last_status": outcome.status, "last_error": outcome.error}
    if outcome.error is None:
        values |= {"state": DeliveryState.DELIVERED, "finished_at": now_ms(), "next_attempt_at": None}
    elif outcome.is_gone or outcome.is_final or earlier_attempts >= len(delays):
        values |= {"state": DeliveryState.FAILED, "finished_at": now_ms(), "next_attempt_at": None}
    else:
        delay = delays[earlier_attempts] if outcome.retry_after is None else max(outcome.retry_after, delays[0])
        values["next_attempt_at"] = now_ms() + int(delay * 1000)
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.seq == due.delivery.seq,
            WebhookDelivery.attempts == earlier_attempts + 1,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .values(values)
        .execution_options(synchronize_session=False)
    )
    if outcome.is_gone:
        session.execute(
            update(Webhook)
            .where(Webhook.id == due.webhook.id, Webhook.enabled)
            .values(enabled=False, disabled_reason="Its target answered 410 (gone).")
            .execution_options(synchronize_session=False)
        )
        fail_pending(session, due.webhook.id, "The webhook was disabled: its target answered 410 (gone).")


def fail_pending(session: Session, webhook_id: str, reason: str) -> None:
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.state == DeliveryState.PENDING)
        .values(state=DeliveryState.FAILED, last_error=reason, finished_at=now_ms(), next_attempt_at=None)
        .execution_options(synchronize_session=False)
    )


def redeliver(session: Session, delivery: WebhookDelivery) -> None:
    """Send a delivery that has ended again, with all attempts."""
    delivery.state, delivery.attempts, delivery.finished_at = DeliveryState.PENDING, 0, None
    delivery.next_attempt_at = session.scalars(select(now_ms())).one()
    session.flush()


def delete_old_deliveries(session: Session, *, days: float) -> None:
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.state != DeliveryState.PENDING, WebhookDelivery.finished_at < now_ms() - int(days * DAY_MS)
        )
    )


class InvalidTargetError(InvalidValueError):
    """Raised for a URL that no webhook may have; the text is a sentence that never contains a password."""


def check_target(url: str) -> None:
    """Check that deliveries may go to a URL. It resolves the host name: do not call it within a transaction.

    Raises:
        InvalidTargetError: they may not.
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
