"""Deliveries of webhooks that repositories elsewhere sent: each is recorded, so that a repeated one does nothing."""

import hashlib
from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.engine import insert_if_absent
from shared.db.models import SourceDelivery

KEEP_DAYS = 30
"""Longer than the services that send webhooks let one be sent again."""
DAY_MS = 24 * 60 * 60 * 1000


def delivery_digest(*parts: bytes) -> str:
    """Return the digest by which a delivery is recognized, of its id or of its content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def record_delivery(session: Session, algorithm_id: str, digests: Collection[str]) -> bool:
    """Record a delivery under all its digests. Return False if it was received before, under any of them.

    It is recorded in the transaction that acts on it: if that fails, the delivery can be sent again.
    """
    known = select(SourceDelivery.seq).where(
        SourceDelivery.algorithm_id == algorithm_id, SourceDelivery.delivery.in_(digests)
    )
    if session.scalars(known.limit(1)).first() is not None:
        return False
    unique = ("algorithm_id", "delivery")
    inserted = [
        insert_if_absent(session, SourceDelivery, unique, algorithm_id=algorithm_id, delivery=digest)
        for digest in sorted(digests)
    ]
    return all(inserted)


def delete_old_deliveries(session: Session, *, keep_days: float = KEEP_DAYS) -> None:
    session.execute(
        delete(SourceDelivery)
        .where(SourceDelivery.created_at < now_ms() - int(keep_days * DAY_MS))
        .execution_options(synchronize_session=False)
    )
