"""Drift: what a registry confirmed once may be gone from it later. Which rows are due for a look, and what one found.

A good push counts as a look. Every UPDATE repeats the digest that was asked for, so that what a newer push brought
meanwhile is not judged by an answer about the older.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.models import Algorithm, ImagePush, Registry, Version
from shared.pushes.progress import record_event

MISSING, FOUND = "missing", "found"
"""The kinds of `PushEvent` that tell of it."""
RETRY_INTERVAL_SECONDS = 600
"""What a registry could not answer is asked again after this."""


@dataclass(frozen=True)
class Look:
    """One digest that executions rely on, and where it should be."""

    push: ImagePush
    algorithm: Algorithm
    registry: Registry

    @property
    def digest(self) -> str:
        """What the registry confirmed."""
        return str(self.push.last_success_digest)


def loss_of(push: ImagePush | Row[Any]) -> str | None:
    """What is to be said of a last good image that is gone from its registry; None: it is not, as far as is known."""
    if push.missing_at is None:
        return None
    return (
        f"The registry did not have the last good image any more at {rfc3339(push.missing_at)}; it was last seen there "
        f"{rfc3339(push.seen_at)}. Push the version there again."
    )


def take_due(session: Session, *, after_seconds: float, limit: int) -> list[Look]:
    """Take the rows that nobody looked at for so long, those that waited longest first; nobody else gets them then.

    A registry that is paused, or that asked to slow down, is left alone.
    """
    due = _due().where(ImagePush.looked_at < now_ms() - int(after_seconds * 1000))
    seen = session.execute(due.order_by(ImagePush.looked_at).limit(limit)).all()
    return [Look(*row) for row in seen if _took(session, row[0])]


def _due() -> Select[tuple[ImagePush, Algorithm, Registry]]:
    return (
        select(ImagePush, Algorithm, Registry)
        .join(Registry, Registry.id == ImagePush.registry_id)
        .join(Version, Version.id == ImagePush.version_id)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(
            Registry.deleted_at.is_(None),
            Registry.paused_at.is_(None),
            or_(Registry.throttled_until.is_(None), Registry.throttled_until < now_ms()),
            Algorithm.deleted_at.is_(None),
        )
    )


def _took(session: Session, push: ImagePush) -> bool:
    taken = session.execute(
        update(ImagePush)
        .where(ImagePush.id == push.id, ImagePush.looked_at == push.looked_at)
        .values(looked_at=now_ms(), updated_at=ImagePush.updated_at)
        .returning(ImagePush.id)
        .execution_options(synchronize_session=False)
    )
    return taken.first() is not None


def look_again_soon(session: Session, looks: Sequence[Look], *, after_seconds: float) -> None:
    """The registry could not say: these are due again after `RETRY_INTERVAL_SECONDS`, if not before."""
    early = int(max(0.0, after_seconds - RETRY_INTERVAL_SECONDS) * 1000)
    session.execute(
        update(ImagePush)
        .where(ImagePush.id.in_([look.push.id for look in looks]))
        .values(looked_at=now_ms() - early, updated_at=ImagePush.updated_at)
        .execution_options(synchronize_session=False)
    )


def mark_seen(session: Session, look: Look) -> bool:
    """The registry has it; whether it was missing until now."""
    back = _step(session, look, was_missing=True, missing_at=None, seen_at=now_ms())
    if back:
        record_event(session, look.push.id, FOUND, f"{look.registry.registry_url} has {look.digest} again.")
    else:
        _step(session, look, was_missing=False, seen_at=now_ms(), updated_at=ImagePush.updated_at)
    return back


def mark_missing(session: Session, look: Look) -> bool:
    """The registry does not have it any more; whether that is news."""
    news = _step(session, look, was_missing=False, missing_at=now_ms())
    if news:
        message = (
            f"{look.registry.registry_url} does not have {look.digest} any more; it was last seen there "
            f"{rfc3339(look.push.seen_at)}. Push the version there again."
        )
        record_event(session, look.push.id, MISSING, message)
    return news


def _step(session: Session, look: Look, *, was_missing: bool, **values: object) -> bool:
    seen = ImagePush.missing_at.is_not(None) if was_missing else ImagePush.missing_at.is_(None)
    stepped = session.execute(
        update(ImagePush)
        .where(ImagePush.id == look.push.id, ImagePush.last_success_digest == look.digest, seen)
        .values(values)
        .returning(ImagePush.id)
        .execution_options(synchronize_session=False)
    )
    return stepped.first() is not None
