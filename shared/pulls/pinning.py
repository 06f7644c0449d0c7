"""Pinning a version to one registry, for when the latest good push is not what executions should pull."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.jobs.locks import lock_version
from shared.models import Algorithm, Version
from shared.pulls.resolution import Resolution, resolve_pull
from shared.refusals import conflict
from shared.registries import find_registry


def pin_pull(session: Session, algorithm: Algorithm, version: Version, registry_id: str) -> Resolution:
    """Have a version pulled from this registry only, whatever is pushed later; what executions pull from now on.

    Raises:
        Refusal: 404, no such registry; 409, it holds no good push of the version.
    """
    registry = find_registry(session, registry_id, kept=True)  # so that none is pinned that is deleted at this moment
    version = _locked(session, version)
    version.pinned_registry_id = registry.id
    session.flush()
    resolution = resolve_pull(session, algorithm, version)
    if resolution.image is None:
        why = next((one.reason for one in resolution.considered if one.registry_id == registry.id), None)
        raise conflict(
            f"{version.git_hash[:12]} cannot be pulled from {registry.registry_url}: "
            f"{why or 'It was never pushed there.'} Push it there (POST …/registry), then pin it."
        )
    return resolution


def unpin_pull(session: Session, version: Version) -> None:
    """Have a version pulled by the rule again; one that is not pinned stays so."""
    _locked(session, version).pinned_registry_id = None


def _locked(session: Session, version: Version) -> Version:
    lock_version(session, version.id)
    return session.scalars(select(Version).where(Version.id == version.id)).one()
