"""The registry from which executions pull the image of a version: by default that of the latest good push.

After the first push request of a version, its image is pulled from registries only, so that nothing runs that the
enterprise has not scanned. By default the same holds for all versions once a registry was recorded; until then they run
from the platform's own store. "Latest" is the order of the callers' requests, not a time. A caller can pin a version to
one registry instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, exists, func, or_, select
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.db.clock import rfc3339
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus, ImagePush, Registry, Version
from shared.errors import ConflictError
from shared.fence import lock_version
from shared.pushes.drift import missing_message
from shared.registries.access import address_of
from shared.registries.first_registry import was_any_registry_recorded
from shared.registries.rows import find_registry
from shared.registry.address import RegistryAddress
from shared.registry.reference import normalize_name
from shared.settings import settings

_PUSHES = (
    select(ImagePush, Registry)
    .outerjoin(Registry, Registry.id == ImagePush.registry_id)
    .where(ImagePush.version_id == bindparam("version"))
    .order_by(func.coalesce(ImagePush.last_success_seq, -1).desc(), ImagePush.seq.desc())
)
# The image of a version without pushes (`shared.algorithms.image_build`), and whether a registry was ever recorded.
_IN_STORE = (
    select(Build.manifest_digest, exists(select(Registry.seq)))
    .join(Version, Version.id == Build.version_id)
    .where(
        Version.id == bindparam("version"),
        Build.status == BuildStatus.SUCCEEDED,
        or_(Version.build_id.is_(None), Version.build_id == Build.id),
    )
    .order_by(Build.seq.desc())
    .limit(1)
)

_PUSH_IT = (
    "Push it (POST …/versions/HASH/registry), or ask an administrator to push all published versions (POST "
    "/v1/registries/ID/adopt); what is compiled after a default registry was set is pushed there by itself."
)


@dataclass(frozen=True)
class Candidate:
    """A registry, or the platform's own store, that was considered."""

    registry_id: str | None
    """None: the platform's own store."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Resolution:
    """The source of an image. Without an `image` there is none, and the reason says what to do."""

    reason: str
    image: str | None = None
    """The reference by digest, in the form of an engine."""
    digest: str | None = None
    registry_id: str | None = None
    """None with an image: it comes from the platform's own store."""
    considered: Sequence[Candidate] = ()


def resolve_pull(session: Session, algorithm: Algorithm, version: Version) -> Resolution:
    """Return where executions of a version pull its image from now, and why."""
    pushes = list(session.execute(_PUSHES, {"version": version.id}))
    if not pushes:
        return _resolve_from_store(session, algorithm, version)
    if version.pinned_registry_id is not None:
        pushes.sort(key=lambda row: row[0].registry_id != version.pinned_registry_id)
    chosen: Resolution | None = None
    considered: list[Candidate] = []
    for position, (push, registry) in enumerate(pushes):
        obstacle = _obstacle(algorithm, push, registry) or _exclusion(version, push, position)
        is_chosen = obstacle is None and chosen is None
        reason = obstacle or ("" if is_chosen else "An earlier one of this list is used.")
        if is_chosen:
            reason = " ".join(filter(None, [_reason(version, push, registry, position), missing_message(push)]))
            digest = str(push.last_success_digest)
            chosen = Resolution(reason, f"{_pushed_repository(push)}@{digest}", digest, registry.id)
        considered.append(Candidate(push.registry_id, push.registry_url, push.last_success_digest, is_chosen, reason))
    return replace(chosen or Resolution(_no_source_reason(version, considered)), considered=considered)


def _obstacle(algorithm: Algorithm, push: ImagePush, registry: Registry | None) -> str | None:
    """Return why the image cannot be pulled from there; None if it can."""
    if registry is None or registry.deleted_at is not None:
        return "The registry was deleted."
    if push.last_success_image is None:
        return f"No push there has succeeded ({push.state}): {push.message}"
    if not is_address_unchanged(algorithm, push, registry):
        return "The registry's address was changed after the push; push there again."
    return None


def _exclusion(version: Version, push: ImagePush, position: int) -> str | None:
    """Return why a usable push is not allowed to be used; None if it is."""
    if version.pinned_registry_id is not None:
        return None if push.registry_id == version.pinned_registry_id else "The version is pinned to another registry."
    if position > 0 and settings().pull_fallback == "none":
        return "It is not the latest good push, and LONGSHORE_PULL_FALLBACK=none does not allow another one."
    return None


def is_address_unchanged(algorithm: Algorithm, push: ImagePush, registry: Registry) -> bool:
    """Return whether the last good push went to the present address of the registry, however that is written."""
    present = address_of(registry)
    names = f"/{normalize_name(algorithm.owner)}/{normalize_name(algorithm.name)}"
    # An image reference has no scheme: the present one is assumed.
    pushed = replace(RegistryAddress.parse(_pushed_repository(push).removesuffix(names)), scheme=present.scheme)
    return pushed.canonical == present.canonical


def _pushed_repository(push: ImagePush) -> str:
    return str(push.last_success_image).rpartition(":")[0]


def _reason(version: Version, push: ImagePush, registry: Registry, position: int) -> str:
    if version.pinned_registry_id is not None:
        return f"The version is pinned to {registry.registry_url}."
    if position == 0:
        return f"The latest good push went to {registry.registry_url} ({rfc3339(push.last_success_at)})."
    return (
        f"Falls back to {registry.registry_url}: later good pushes cannot be used, and this is the latest one that "
        f"can ({rfc3339(push.last_success_at)})."
    )


def _no_source_reason(version: Version, considered: Sequence[Candidate]) -> str:
    if version.pinned_registry_id is not None:
        pinned = next((one for one in considered if one.registry_id == version.pinned_registry_id), None)
        why = pinned.reason if pinned is not None else "It was never pushed there."
        return (
            f"The version is pinned to a registry from which it cannot be pulled: {why} Push it there again, pin "
            "another registry, or remove the pin."
        )
    if settings().pull_fallback == "none" and any(one.digest is not None for one in considered[1:]):
        return (
            f"The latest good push cannot be used: {considered[0].reason} LONGSHORE_PULL_FALLBACK=none does not allow "
            "an earlier one. Push the version to a registry, then call again."
        )
    return (
        "A push of the version was requested, so it is pulled from registries only, and no registry has it from a good "
        f"push: {considered[0].reason} Push it to a registry, then call again."
    )


def _resolve_from_store(session: Session, algorithm: Algorithm, version: Version) -> Resolution:
    """Return the source of a version without push requests: the platform's own store, if that is allowed."""
    if version.pinned_registry_id is not None:
        return Resolution(_no_source_reason(version, ()))
    build = image_build(session, version)
    digest = None if build is None else build.manifest_digest
    image: str | None = None
    reason = _store_obstacle()
    if reason is None and digest is None:
        reason = "The version has no image in the platform's store; compile it."
    elif reason is None:
        reason = "No push of the version was ever requested: the image comes from the platform's own store."
        image = f"{algorithm.image_path}@{digest}"
    return Resolution(
        reason, image, digest if image else None, None, (Candidate(None, None, digest, image is not None, reason),)
    )


def still_runs_from_store(version_id: str, digest: str) -> bool:
    """Return whether a version without pushes, which ran from the platform's own store, would get this image there."""
    for present, any_registry in database().ask(_IN_STORE, version=version_id):
        return bool(present == digest and not (any_registry and settings().pull_fallback == "auto"))
    return False


def _store_obstacle() -> str | None:
    """Return why versions that were never pushed may not run from the platform's own store; None if they may."""
    fallback = settings().pull_fallback
    if fallback == "auto" and was_any_registry_recorded():
        return (
            "The version was never pushed to a registry, and since the first registry was recorded only images in a "
            f"registry may run (LONGSHORE_PULL_FALLBACK=auto). {_PUSH_IT}"
        )
    if fallback in ("none", "registry"):
        return (
            "The version was never pushed to a registry, and only images in a registry may run "
            f"(LONGSHORE_PULL_FALLBACK={fallback}). {_PUSH_IT}"
        )
    if settings().serving == "kubernetes":
        return (
            "The version was never pushed to a registry, and a cluster pulls images from recorded registries only, not "
            "from the platform's own store; if that is a registry (LONGSHORE_HOME_REGISTRY), an administrator can "
            f"record it as well (POST /v1/registries). {_PUSH_IT}"
        )
    return None


def pin_pull(session: Session, algorithm: Algorithm, version: Version, registry_id: str) -> Resolution:
    """Pin a version to a registry, whatever is pushed later. Return what executions pull from now on.

    Raises:
        NotFoundError: there is no such registry.
        ConflictError: it has no good push of the version.
    """
    registry = find_registry(session, registry_id, for_share=True)  # it cannot be deleted meanwhile
    version = _lock(session, version)
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
    _lock(session, version).pinned_registry_id = None


def _lock(session: Session, version: Version) -> Version:
    lock_version(session, version.id)
    return session.scalars(select(Version).where(Version.id == version.id)).one()
