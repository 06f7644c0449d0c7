"""Pins: a version that is pulled from one registry, whatever was pushed to others later.

For the case that the platform's page calls unexpected: a re-push to a sandbox takes over production.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import ImagePush, Version
from shared.refusals import conflict
from shared.registries import find_registry


def pin(session: Session, version: Version, registry_id: str) -> None:
    """Have a version pulled from this registry alone.

    Raises:
        Refusal: 404, no such registry; 409, the version was never pushed there well.
    """
    registry = find_registry(session, registry_id, kept=True)
    there = session.scalar(
        select(ImagePush.last_success_digest).where(
            ImagePush.version_id == version.id, ImagePush.registry_id == registry.id
        )
    )
    if there is None:
        raise conflict(
            f"{version.git_hash[:12]} has no good push to {registry.registry_url}, so it could not run from there; "
            "push it there first."
        )
    version.pinned_registry_id = registry.id


def unpin(version: Version) -> None:
    """Have a version pulled from where its latest good push went to."""
    version.pinned_registry_id = None
