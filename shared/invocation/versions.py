"""Which version a call means: by number, by a pattern of numbers, by hash, or the latest.

What a caller may not call does not exist for it: the answer is the same as for a version that nobody ever made.
"""

import re
from collections.abc import Callable

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.algorithms import HASH_HAS_PREFIX, HASH_PREFIX, find_algorithm, hash_range
from shared.db.models import Algorithm, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError, NotFoundError, RequestError
from shared.keys import Caller

LATEST = "latest"
LATEST_PRIVATE = "latestPrivate"
PUBLIC = "public"
PRIVATE = "private"
NUMBER = r"(?:0|[1-9][0-9]{0,17})"
SEMANTIC_VERSION = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}")
PATTERN = re.compile(rf"({NUMBER}\.(?:{NUMBER}\.)?)\*")
FORMS = "a semantic version, 1.2.*, 1.*, latest, latestPrivate, or a commit's hash (7 characters of it or more)"


def find_called(session: Session, caller: Caller, name: str, wanted: str | None) -> tuple[Algorithm, Version]:
    """The algorithm and the version that a call means; `wanted` is what stood behind its name, if anything.

    Raises:
        NotFoundError: no such algorithm or version, or none that the caller may call.
        PermissionDeniedError: the key may not call this algorithm.
        InvalidInputError: the hash is ambiguous.
    """
    algorithm = find_algorithm(session, name)
    caller.require_caller(algorithm)
    owns = caller.owns(algorithm.owner)
    if wanted is not None and SEMANTIC_VERSION.fullmatch(wanted):
        found = session.scalar(_BY_NUMBER, {"algorithm": algorithm.id, "number": wanted})
        if found is None or not _may_call(found, owns=owns):
            raise _no_version(algorithm, wanted)
        return algorithm, found
    if wanted is not None and HASH_PREFIX.fullmatch(wanted.lower()):
        return algorithm, _by_hash(session, algorithm, wanted.lower(), owns=owns)
    return algorithm, _highest(session, algorithm, wanted, owns=owns)


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


def _by_hash(session: Session, algorithm: Algorithm, prefix: str, *, owns: bool) -> Version:
    begun = session.scalars(_BY_HASH, {"algorithm": algorithm.id, **hash_range(prefix)})
    found = [version for version in begun if _may_call(version, owns=owns)]
    if not found:
        raise _no_version(algorithm, prefix)
    if len(found) > 1:
        raise InvalidInputError(f"{prefix} fits more than one version of {algorithm.path}; give more of the hash.")
    return found[0]


def _may_call(version: Version, *, owns: bool) -> bool:
    return owns or (version.published and version.callability == PUBLIC)


def _highest(session: Session, algorithm: Algorithm, wanted: str | None, *, owns: bool) -> Version:
    """The one with the highest number among those that are meant."""
    is_meant = _meant_by(algorithm, wanted, owns=owns)
    published = session.execute(_NUMBERS, {"algorithm": algorithm.id}).all()
    meant = [row for row in published if (owns or row.callability == PUBLIC) and is_meant(row)]
    if not meant:
        raise _no_version(algorithm, wanted)
    highest = max(meant, key=lambda row: numbers_of(row.semantic_version))
    return session.scalars(_BY_ID, {"version": highest.id}).one()


def _meant_by(algorithm: Algorithm, wanted: str | None, *, owns: bool) -> Callable[..., bool]:
    """Whether a row is one of those that `wanted` stands for."""
    if wanted is None:
        return lambda _row: True
    if wanted == LATEST:
        return lambda row: bool(row.callability == PUBLIC)
    if wanted == LATEST_PRIVATE and owns:
        return lambda row: bool(row.callability == PRIVATE)
    pattern = PATTERN.fullmatch(wanted)
    if pattern is None:
        raise _no_version(algorithm, wanted)
    begins = pattern[1]
    return lambda row: bool(row.semantic_version.startswith(begins))


def numbers_of(semantic_version: str) -> list[int]:
    """What a semantic version is ordered by: its numbers, for 0.10.0 comes after 0.9.0."""
    return [int(part) for part in semantic_version.split(".")]


def _no_version(algorithm: Algorithm, wanted: str | None) -> RequestError:
    if wanted is None:
        return NotFoundError(f"{algorithm.path} has no published version that this key may call; publish one first.")
    return NotFoundError(f"{algorithm.path} has no version {wanted[:80]} that this key may call; name {FORMS}.")
