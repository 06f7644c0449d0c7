"""The push that may bring the image of a version that no registry has yet, and whether a call should wait for it."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import ImagePush, Job, PushState, Registry, Version
from shared.pushes.queries import LIVE_STATES
from shared.registries.circuit_breaker import waiting_reason

_LIVE_PUSHES = (
    select(ImagePush, Registry, Job.credentials.is_not(None), Job.next_attempt_at > now_ms())
    .join(Job, Job.id == ImagePush.job_id)
    .join(Registry, Registry.id == ImagePush.registry_id)
    .where(
        ImagePush.version_id == bindparam("version"),
        ImagePush.state.in_(LIVE_STATES),
        Registry.deleted_at.is_(None),
    )
    .order_by(Job.seq.desc())
)


@dataclass(frozen=True)
class PendingPush:
    """A push of a version that has not ended."""

    registry_url: str
    message: str
    obstacle: str | None
    """Why it does not end soon by itself, in a sentence; None: it is under way."""


def find_pending_push(session: Session, version: Version) -> PendingPush | None:
    """Return the push that brings an image for calls of a version first, or else one that cannot now, or else None.

    Of a version that is pinned to a registry, that is a push to this registry.
    """
    pending = [
        PendingPush(
            push.registry_url,
            push.message,
            _obstacle(push, registry, own_credentials=own_credentials, backs_off=bool(backs_off)),
        )
        for push, registry, own_credentials, backs_off in session.execute(_LIVE_PUSHES, {"version": version.id})
        if version.pinned_registry_id in (None, push.registry_id)
    ]
    return next((push for push in pending if push.obstacle is None), pending[0] if pending else None)


def _obstacle(push: ImagePush, registry: Registry, *, own_credentials: bool, backs_off: bool) -> str | None:
    if push.state == PushState.STALLED or backs_off:
        return push.message
    if push.state == PushState.QUEUED:
        return waiting_reason(registry, own_credentials=own_credentials)
    return None
