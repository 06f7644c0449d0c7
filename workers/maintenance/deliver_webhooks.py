"""Sending what the outbox holds for webhooks: signed, to checked addresses, and never in anybody's way.

One process at a time sends, a few deliveries at once; a target that is slow holds up other deliveries at most.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import structlog

from shared.db.engine import database
from shared.encryption import DecryptionError, keyring
from shared.errors import WorkError
from shared.jobs.worker_processes import acquire_delivery_lease, release_delivery_lease
from shared.net.address_rules import webhook_networks
from shared.net.errors import retry_after
from shared.net.http import HttpTransport, Timeouts
from shared.net.tls import tls_context
from shared.settings import settings
from shared.webhooks.deliveries import Due, Outcome, forget_old, take_due, write_outcome
from shared.webhooks.events import CONTENT_TYPE
from shared.webhooks.signing import open_secret, signature

log = structlog.get_logger(__name__)

AT_ONCE = 8
TIMEOUT_SECONDS = 10.0
TIMEOUTS = Timeouts(connect=3, read=TIMEOUT_SECONDS, total=TIMEOUT_SECONDS)
HOLD_SECONDS = 60
"""Longer than a batch takes; a delivery whose sender died is sent again after this."""
TURN_SECONDS = 60
GONE = 410
MAX_RESPONSE_BYTES = 4096


def deliver() -> None:
    """Send what is due, unless another process does."""
    with database().writing() as session:
        turn = acquire_delivery_lease(session, seconds=TURN_SECONDS)
    if turn is None:
        return
    # A batch takes as long as its slowest target; the last one begins early enough to end within the turn.
    last_batch_at = time.monotonic() + TURN_SECONDS - 3 * TIMEOUT_SECONDS
    try:
        while _send_batch() and time.monotonic() < last_batch_at:
            continue
        with database().writing() as session:
            forget_old(session, days=settings().webhook_keep_days)
    finally:
        with database().writing() as session:
            release_delivery_lease(session, turn)


def _send_batch() -> bool:
    """Send some deliveries at once; whether there were any."""
    with database().writing() as session:
        batch = take_due(session, limit=AT_ONCE, hold_seconds=HOLD_SECONDS)
    if not batch:
        return False
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="delivery") as senders:
        outcomes = list(senders.map(_send, batch))
    with database().writing() as session:
        for due, outcome in zip(batch, outcomes, strict=True):
            write_outcome(session, due, outcome, delays=settings().webhook_delays)
    return True


def _send(due: Due) -> Outcome:
    if not due.webhook.enabled or due.webhook.deleted_at is not None:
        return Outcome(None, "The webhook was disabled or deleted.", final=True)
    body, now = due.delivery.body.encode(), int(time.time())
    try:
        secret = open_secret(keyring(), due.webhook)
    except DecryptionError as error:
        return Outcome(None, f"The webhook's secret cannot be used: {error}. Give it a new one.")
    headers = {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "longshore",
        "webhook-id": due.delivery.id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, due.delivery.id, now, body),
    }
    transport = HttpTransport(tls_context(), TIMEOUTS, networks=webhook_networks())
    try:
        answer = transport.request("POST", due.webhook.url, headers, body, max_bytes=MAX_RESPONSE_BYTES)
    except WorkError as error:
        return Outcome(None, error.message)
    finally:
        transport.close()
    if 200 <= answer.status < 300:
        return Outcome(answer.status, None)
    host = urlsplit(due.webhook.url).hostname
    log.info("webhook not taken", webhook_id=due.webhook.id, status=answer.status)
    return Outcome(
        answer.status,
        f"{host} answered {answer.status}.",
        retry_after=retry_after(answer.headers.get("Retry-After")),
        gone=answer.status == GONE,
    )
