"""Which registry an execution pulls a version's image from: the one that the latest good push went to.

Once a version was ever asked to go to a registry, it is pulled from registries only: nothing runs that the enterprise
has not scanned. "Latest" goes by the order in which callers asked, never by a clock.

Pinning a version to one registry, for when the latest good push is not what executions should pull.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.db.clock import rfc3339
from shared.db.models import Algorithm, ImagePush, Registry, Version
from shared.errors import ConflictError
from shared.fence import lock_version
from shared.pushes.drift import loss_of
from shared.registries.rows import address_of, find_registry
from shared.registry.address import RegistryAddress
from shared.registry.reference import normalize_name
from shared.settings import settings


@dataclass(frozen=True)
class Candidate:
    """One place that the image could be pulled from, and what became of it."""

    registry_id: str | None
    """Nothing: the platform's own store."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Resolution:
    """Where an image is pulled from; without an `image` from nowhere, and the reason says what to do."""

    reason: str
    image: str | None = None
    """Its reference by digest, as an engine takes it."""
    digest: str | None = None
    registry_id: str | None = None
    """Nothing beside an image: it comes from the platform's own store."""
    considered: Sequence[Candidate] = field(default=())


def resolve_pull(session: Session, algorithm: Algorithm, version: Version) -> Resolution:
    """Where executions of a version pull its image from at this moment, and why."""
    pushes = session.execute(_PUSHES, {"version": version.id}).all()
    if not pushes:
        return _from_store(session, algorithm, version)
    wanted = pushes if version.pinned_registry_id is None else _pinned_first(pushes, version.pinned_registry_id)
    found: Resolution | None = None
    considered: list[Candidate] = []
    for place, (push, registry) in enumerate(wanted):
        obstacle = _obstacle(algorithm, push, registry) or _excluded(version, push, place)
        chosen = obstacle is None and found is None
        reason = obstacle or ("" if chosen else "An earlier one of this list is used.")
        if chosen:
            reason = " ".join(filter(None, [_why(version, push, registry, place), loss_of(push)]))
            found = _from_registry(push, registry, reason)
        considered.append(Candidate(push.registry_id, push.registry_url, push.last_success_digest, chosen, reason))
    if found is None:
        return Resolution(_none_of(version, considered), considered=considered)
    return Resolution(found.reason, found.image, found.digest, found.registry_id, considered)


_PUSHES = (
    select(ImagePush, Registry)
    .outerjoin(Registry, Registry.id == ImagePush.registry_id)
    .where(ImagePush.version_id == bindparam("version"))
    .order_by(func.coalesce(ImagePush.last_success_seq, -1).desc(), ImagePush.seq.desc())
)


def _pinned_first(pushes: Sequence[Row[Any]], registry_id: str) -> list[Row[Any]]:
    return sorted(pushes, key=lambda row: row[0].registry_id != registry_id)


def _obstacle(algorithm: Algorithm, push: ImagePush, registry: Registry | None) -> str | None:
    """Why the image cannot come from there; None: it can."""
    if registry is None or registry.deleted_at is not None:
        return "The registry was deleted."
    if push.last_success_image is None:
        return f"No push there has succeeded ({push.state}): {push.message}"
    if not is_still_at(algorithm, push, registry):
        return "The registry's address was changed after the push; push there again."
    return None


def _excluded(version: Version, push: ImagePush, place: int) -> str | None:
    if version.pinned_registry_id is not None and push.registry_id != version.pinned_registry_id:
        return "The version is pinned to another registry."
    if version.pinned_registry_id is None and place > 0 and settings().pull_fallback == "none":
        return "It is not the latest good push, and LONGSHORE_PULL_FALLBACK=none lets nothing else be used."
    return None


def is_still_at(algorithm: Algorithm, push: ImagePush, registry: Registry) -> bool:
    """Whether the registry's address is still the one that the last good push went to, in whatever spelling."""
    now = address_of(registry)
    below = f"/{normalize_name(algorithm.owner)}/{normalize_name(algorithm.name)}"
    # An image's reference has no scheme: it is read in the one that the registry has now.
    pushed = replace(RegistryAddress.parse(_repository(push).removesuffix(below)), scheme=now.scheme)
    return pushed.place == now.place


def _repository(push: ImagePush) -> str:
    return str(push.last_success_image).rpartition(":")[0]


def _from_registry(push: ImagePush, registry: Registry, reason: str) -> Resolution:
    digest = str(push.last_success_digest)
    return Resolution(reason, f"{_repository(push)}@{digest}", digest, registry.id)


def _why(version: Version, push: ImagePush, registry: Registry, place: int) -> str:
    if version.pinned_registry_id is not None:
        return f"The version is pinned to {registry.registry_url}."
    if place == 0:
        return f"The latest good push went to {registry.registry_url} ({rfc3339(push.last_success_at)})."
    return (
        f"Falls back to {registry.registry_url}: later good pushes cannot be used, and of those that can this is "
        f"the latest ({rfc3339(push.last_success_at)})."
    )


def _none_of(version: Version, considered: Sequence[Candidate]) -> str:
    if version.pinned_registry_id is not None:
        pinned = next((one for one in considered if one.registry_id == version.pinned_registry_id), None)
        why = pinned.reason if pinned is not None else "It was never pushed there."
        return (
            f"The version is pinned to a registry that it cannot be pulled from: {why} Push it there again, pin "
            "another registry, or remove the pin."
        )
    if settings().pull_fallback == "none" and any(one.digest is not None for one in considered[1:]):
        return (
            f"The latest good push cannot be used: {considered[0].reason} LONGSHORE_PULL_FALLBACK=none lets no earlier "
            "one take its place. Push the version to a registry, then call again."
        )
    return (
        "The version was asked to go to a registry, so it is pulled from registries only, and none has it from a good "
        f"push: {considered[0].reason} Push it to a registry, then call again."
    )


def _from_store(session: Session, algorithm: Algorithm, version: Version) -> Resolution:
    """The platform's own store, for what was never asked to go to a registry, where that is allowed."""
    if version.pinned_registry_id is not None:
        return Resolution(_none_of(version, ()))
    build = image_build(session, version)
    digest = None if build is None else build.manifest_digest
    if settings().pull_fallback != "store":
        reason = (
            "The version was never pushed to a registry, and only what is in a registry runs "
            "(LONGSHORE_PULL_FALLBACK is not `store`). Push it to a registry, then call again."
        )
        return Resolution(reason, considered=(Candidate(None, None, digest, False, reason),))
    if digest is None:
        reason = "The version has no image in the platform's store; compile it."
        return Resolution(reason, considered=(Candidate(None, None, None, False, reason),))
    reason = "The version was never asked to go to a registry: the image comes from the platform's own store."
    considered = (Candidate(None, None, digest, True, reason),)
    return Resolution(reason, f"{algorithm.image_path}@{digest}", digest, None, considered)


def pin_pull(session: Session, algorithm: Algorithm, version: Version, registry_id: str) -> Resolution:
    """Have a version pulled from this registry only, whatever is pushed later; what executions pull from now on.

    Raises:
        NotFoundError: no such registry.
        ConflictError: the registry has no good push of the version.
    """
    registry = find_registry(session, registry_id, kept=True)  # so that none is pinned that is deleted at this moment
    version = _locked(session, version)
    version.pinned_registry_id = registry.id
    session.flush()
    resolution = resolve_pull(session, algorithm, version)
    if resolution.image is None:
        why = next((one.reason for one in resolution.considered if one.registry_id == registry.id), None)
        raise ConflictError(
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
