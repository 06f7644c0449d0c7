"""Send the deliveries in the outbox of webhooks: signed, and only to allowed addresses.

One process sends at a time, a few deliveries concurrently; a slow target delays other deliveries only.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import structlog

from shared.db.engine import database
from shared.encryption import DecryptionError, keyring
from shared.errors import WorkError
from shared.jobs.worker_processes import acquire_delivery_lease, release_delivery_lease
from shared.net.address_rules import webhook_networks
from shared.net.connections import tls_context
from shared.net.errors import retry_after
from shared.net.http import HttpTransport, Timeouts
from shared.settings import settings
from shared.webhooks.deliveries import (
    DueDelivery,
    Outcome,
    delete_old_deliveries,
    take_due_deliveries,
    write_outcome,
)
from shared.webhooks.events import CONTENT_TYPE
from shared.webhooks.signing import decrypt_secret, signature

log = structlog.get_logger(__name__)

MAX_CONCURRENT = 8
TIMEOUT_SECONDS = 10.0
HOLD_SECONDS = 60
"""More than a batch takes; deliveries of a sender that died are sent again after this."""
LEASE_SECONDS = 60
MAX_RESPONSE_BYTES = 4096


def deliver() -> None:
    """Send what is due, unless another process does."""
    with database().writing() as session:
        lease = acquire_delivery_lease(session, seconds=LEASE_SECONDS)
    if lease is None:
        return
    # A batch takes as long as its slowest target; the last one starts early enough to end within the lease.
    last_start = time.monotonic() + LEASE_SECONDS - 3 * TIMEOUT_SECONDS
    try:
        while _send_batch() and time.monotonic() < last_start:
            continue
        with database().writing() as session:
            delete_old_deliveries(session, days=settings().webhook_keep_days)
    finally:
        with database().writing() as session:
            release_delivery_lease(session, lease)


def _send_batch() -> bool:
    """Send some deliveries concurrently; return whether there were any."""
    with database().writing() as session:
        batch = take_due_deliveries(session, limit=MAX_CONCURRENT, hold_seconds=HOLD_SECONDS)
    if not batch:
        return False
    with ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="delivery") as senders:
        outcomes = list(senders.map(_send, batch))
    with database().writing() as session:
        for due, outcome in zip(batch, outcomes, strict=True):
            write_outcome(session, due, outcome, delays=settings().webhook_delays)
    return True


def _send(due: DueDelivery) -> Outcome:
    if not due.webhook.enabled or due.webhook.deleted_at is not None:
        return Outcome(None, "The webhook was disabled or deleted.", is_final=True)
    body, now = due.delivery.body.encode(), int(time.time())
    try:
        secret = decrypt_secret(keyring(), due.webhook)
    except DecryptionError as error:
        return Outcome(None, f"The webhook's secret cannot be used: {error}. Give it a new one.")
    headers = {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "longshore",
        "webhook-id": due.delivery.id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, due.delivery.id, now, body),
    }
    try:
        with closing(
            HttpTransport(
                tls_context(),
                Timeouts(connect=3, read=TIMEOUT_SECONDS, total=TIMEOUT_SECONDS),
                networks=webhook_networks(),
            )
        ) as transport:
            response = transport.request("POST", due.webhook.url, headers, body, max_bytes=MAX_RESPONSE_BYTES)
    except WorkError as error:
        return Outcome(None, error.message)
    if 200 <= response.status < 300:
        return Outcome(response.status, None)
    log.info("webhook_rejected", webhook_id=due.webhook.id, status=response.status)
    return Outcome(
        response.status,
        f"{urlsplit(due.webhook.url).hostname} answered {response.status}.",
        retry_after=retry_after(response.headers.get("Retry-After")),
        is_gone=response.status == 410,
    )
