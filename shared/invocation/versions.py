"""Find the version that a call names: by number, by a pattern of numbers, by hash, or the latest.

A version that the caller may not call does not exist for it: the response is the same as for one that was never made.
"""

import re

from sqlalchemy import Row, bindparam, select
from sqlalchemy.orm import Session

from shared.algorithms import HASH_HAS_PREFIX, HASH_PREFIX, find_visible_algorithm, hash_range
from shared.db.models import Algorithm, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError, NotFoundError, RequestError
from shared.keys import Caller

NUMBER = r"(?:0|[1-9][0-9]{0,17})"
SEMANTIC_VERSION = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}")
PATTERN = re.compile(rf"({NUMBER})(?:\.({NUMBER}|[*xX]))?(?:\.({NUMBER}|[*xX]))?")
"""A number, and below it numbers, `*` or `x`; what is left out is as `*`."""
WILDCARDS = "*xX"
SELECTORS = (
    "a semantic version, 1 or 1.* or 1.x, 1.2 or 1.2.* or 1.2.x, latest, latestPrivate, or a commit's hash (7 "
    "characters of it or more)"
)

_OF_ALGORITHM = select(Version).where(Version.algorithm_id == bindparam("algorithm"))
_BY_NUMBER = _OF_ALGORITHM.where(
    Version.semantic_version == bindparam("number"), Version.publish_state == PublishState.PUBLISHED
)
_BY_HASH = _OF_ALGORITHM.where(HASH_HAS_PREFIX).order_by(Version.seq)
_BY_ID = select(Version).where(Version.id == bindparam("version"))
_NUMBERS = select(Version.id, Version.semantic_version, Version.callability).where(
    Version.algorithm_id == bindparam("algorithm"),
    Version.publish_state == PublishState.PUBLISHED,
    Version.semantic_version.is_not(None),
)
_PENDING = (
    select(Version)
    .where(Version.algorithm_id == bindparam("algorithm"), Version.publish_state == PublishState.PENDING)
    .order_by(Version.seq.desc())
    .limit(1)
)


def find_called_version(session: Session, caller: Caller, name: str, selector: str | None) -> tuple[Algorithm, Version]:
    """Return the algorithm and the version that a call names. `selector` is the part of the URL after the name.

    Raises:
        NotFoundError: no such algorithm or version, or none that the caller may call.
        PermissionDeniedError: the key may not call this algorithm, but may know of it.
        InvalidInputError: the hash is ambiguous.
    """
    algorithm = find_visible_algorithm(session, caller, name)
    caller.require_caller(algorithm)
    owns = caller.owns(algorithm.owner)
    if selector is not None and SEMANTIC_VERSION.fullmatch(selector):
        version = session.scalar(_BY_NUMBER, {"algorithm": algorithm.id, "number": selector})
        if version is None or not _may_call(version, owns=owns):
            raise _no_such_version(session, algorithm, selector, owns=owns)
        return algorithm, version
    if selector is not None and HASH_PREFIX.fullmatch(selector.lower()):
        return algorithm, _find_by_hash(session, algorithm, selector.lower(), owns=owns)
    return algorithm, _find_highest(session, algorithm, selector, owns=owns)


def _find_by_hash(session: Session, algorithm: Algorithm, prefix: str, *, owns: bool) -> Version:
    matching = session.scalars(_BY_HASH, {"algorithm": algorithm.id, **hash_range(prefix)})
    versions = [version for version in matching if _may_call(version, owns=owns)]
    if not versions:
        raise _no_such_version(session, algorithm, prefix, owns=owns)
    if len(versions) > 1:
        raise InvalidInputError(f"{prefix} fits more than one version of {algorithm.path}; give more of the hash.")
    return versions[0]


def _may_call(version: Version, *, owns: bool) -> bool:
    return owns or (version.published and version.callability == "public")


def _find_highest(session: Session, algorithm: Algorithm, selector: str | None, *, owns: bool) -> Version:
    """Return the version with the highest number among those that the selector matches."""
    wanted: list[int | None] = []
    callability = None
    if selector == "latest":
        callability = "public"
    elif selector == "latestPrivate" and owns:
        callability = "private"
    elif selector is not None:
        pattern = PATTERN.fullmatch(selector)
        if pattern is None:
            raise _no_such_version(session, algorithm, selector, owns=owns)
        wanted = [None if part is None or part in WILDCARDS else int(part) for part in pattern.groups()]
    matching = [
        row
        for row in session.execute(_NUMBERS, {"algorithm": algorithm.id})
        if (owns or row.callability == "public")
        and (callability is None or row.callability == callability)
        and all(asked in (None, number) for asked, number in zip(wanted, _numbers(row), strict=False))
    ]
    if not matching:
        raise _no_such_version(session, algorithm, selector, owns=owns)
    return session.scalars(_BY_ID, {"version": max(matching, key=_numbers).id}).one()


def _numbers(row: Row[tuple[str, str | None, str]]) -> list[int]:
    return [int(number) for number in (row.semantic_version or "").split(".")]  # 0.10.0 comes after 0.9.0


def _no_such_version(session: Session, algorithm: Algorithm, selector: str | None, *, owns: bool) -> RequestError:
    pending = session.scalar(_PENDING, {"algorithm": algorithm.id}) if owns else None
    waits = (
        ""
        if pending is None
        else f" The publish of {pending.semantic_version} ({pending.git_hash[:12]}) waits for its build: "
        f"GET /v1/jobs/{pending.publish_job_id} says when it has ended."
    )
    if selector is None:
        remedy = "call again when it has one." if waits else "publish one first."
        return NotFoundError(f"{algorithm.path} has no published version that this key may call; {remedy}{waits}")
    return NotFoundError(
        f"{algorithm.path} has no version {selector[:80]} that this key may call; name {SELECTORS}.{waits}"
    )
