"""Drift: a registry can lose an image that it confirmed. Which push rows are due for a check, and what a check found.

A successful push counts as a check. Every UPDATE repeats the digest that was checked, so that a response about an
older digest does not change the row of a newer push.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.models import Algorithm, ImagePush, Registry, Version
from shared.pushes.progress import record_event

MISSING, FOUND = "missing", "found"
"""Kinds of `PushEvent`."""
RETRY_INTERVAL_SECONDS = 600
"""Seconds until the next check where the registry did not respond."""


@dataclass(frozen=True)
class DriftCheck:
    """A check whether a registry still has the image of the last successful push."""

    push: ImagePush
    algorithm: Algorithm
    registry: Registry

    @property
    def digest(self) -> str:
        return str(self.push.last_success_digest)


def missing_message(push: ImagePush | Row[Any]) -> str | None:
    """Return the status message for an image that its registry has lost; None if it is there, as far as known."""
    if push.missing_at is None:
        return None
    return (
        f"The registry did not have the last good image any more at {rfc3339(push.missing_at)}; it was last seen there "
        f"{rfc3339(push.seen_at)}. Push the version there again."
    )


def take_due_checks(session: Session, *, after_seconds: float, limit: int) -> list[DriftCheck]:
    """Take the checks that are due, the longest overdue first; no other process gets them.

    Registries that are paused or throttled are left out.
    """
    due = session.execute(
        select(ImagePush, Algorithm, Registry)
        .join(Registry, Registry.id == ImagePush.registry_id)
        .join(Version, Version.id == ImagePush.version_id)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(
            Registry.deleted_at.is_(None),
            Registry.paused_at.is_(None),
            or_(Registry.throttled_until.is_(None), Registry.throttled_until < now_ms()),
            Algorithm.deleted_at.is_(None),
            ImagePush.looked_at < now_ms() - int(after_seconds * 1000),
        )
        .order_by(ImagePush.looked_at)
        .limit(limit)
    ).all()
    return [DriftCheck(*row) for row in due if _take(session, row[0])]


def _take(session: Session, push: ImagePush) -> bool:
    return (
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == push.id, ImagePush.looked_at == push.looked_at)
            .values(looked_at=now_ms(), updated_at=ImagePush.updated_at)
            .returning(ImagePush.id)
            .execution_options(synchronize_session=False)
        ).first()
        is not None
    )


def retry_checks_soon(session: Session, checks: Sequence[DriftCheck], *, after_seconds: float) -> None:
    """Make checks due again after `RETRY_INTERVAL_SECONDS`, or after `after_seconds` if that is less."""
    session.execute(
        update(ImagePush)
        .where(ImagePush.id.in_([check.push.id for check in checks]))
        .values(
            looked_at=now_ms() - int(max(0.0, after_seconds - RETRY_INTERVAL_SECONDS) * 1000),
            updated_at=ImagePush.updated_at,
        )
        .execution_options(synchronize_session=False)
    )


def mark_seen(session: Session, check: DriftCheck) -> bool:
    """Write that the registry has the image; return whether it was missing before."""
    was_missing = _update_row(session, check, was_missing=True, missing_at=None, seen_at=now_ms())
    if was_missing:
        record_event(session, check.push.id, FOUND, f"{check.registry.registry_url} has {check.digest} again.")
    else:
        _update_row(session, check, was_missing=False, seen_at=now_ms(), updated_at=ImagePush.updated_at)
    return was_missing


def mark_missing(session: Session, check: DriftCheck) -> bool:
    """Write that the registry has lost the image; return whether it was there before."""
    was_there = _update_row(session, check, was_missing=False, missing_at=now_ms())
    if was_there:
        record_event(
            session,
            check.push.id,
            MISSING,
            f"{check.registry.registry_url} does not have {check.digest} any more; it was last seen there "
            f"{rfc3339(check.push.seen_at)}. Push the version there again.",
        )
    return was_there


def _update_row(session: Session, check: DriftCheck, *, was_missing: bool, **values: object) -> bool:
    return (
        session.execute(
            update(ImagePush)
            .where(
                ImagePush.id == check.push.id,
                ImagePush.last_success_digest == check.digest,
                ImagePush.missing_at.is_not(None) if was_missing else ImagePush.missing_at.is_(None),
            )
            .values(values)
            .returning(ImagePush.id)
            .execution_options(synchronize_session=False)
        ).first()
        is not None
    )
