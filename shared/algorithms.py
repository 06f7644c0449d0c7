"""Find algorithms, versions and builds by the names that callers use."""

import re
import uuid
from typing import Literal

from sqlalchemy import Select, and_, bindparam, select
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, Build, BuildStatus, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError, NotFoundError
from shared.keys import Caller

FULL_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
HASH_PREFIX = re.compile(r"[0-9a-f]{7,64}")
AFTER_HEXADECIMAL = "g"
# Constants: building a statement takes longer than running it.
_ALGORITHM = select(Algorithm).where(Algorithm.deleted_at.is_(None))
_BY_NAME = _ALGORITHM.where(Algorithm.owner == bindparam("owner"), Algorithm.name == bindparam("name"))
_BY_ID = _ALGORITHM.where(Algorithm.id == bindparam("id"))
_PUBLIC_VERSION = (
    select(Version.id)
    .where(
        Version.algorithm_id == bindparam("algorithm"),
        Version.semantic_version.is_not(None),
        Version.publish_state == PublishState.PUBLISHED,
        Version.callability == "public",
    )
    .limit(1)
)
_WITH_VERSION = (
    select(Algorithm, Version)
    .join(Version, Version.algorithm_id == Algorithm.id)
    .where(Version.id == bindparam("version"), Algorithm.deleted_at.is_(None))
)
HASH_HAS_PREFIX = and_(Version.git_hash >= bindparam("begins"), Version.git_hash < bindparam("before"))
"""Condition that a commit hash has a prefix; `hash_range` returns its parameters.

A range, because an index supports it under any collation, unlike LIKE.
"""
_VERSIONS = (
    select(Version)
    .where(Version.algorithm_id == bindparam("algorithm"), HASH_HAS_PREFIX)
    .order_by(Version.seq)
    .limit(2)
)
_GOOD_BUILD = (
    select(Build)
    .where(Build.version_id == bindparam("version"), Build.status == BuildStatus.SUCCEEDED)
    .order_by(Build.seq.desc())
    .limit(1)
)
_BOUND_BUILD = _GOOD_BUILD.where(Build.id == bindparam("build"))


class AlgorithmNotFoundError(NotFoundError):
    """Raised when there is no algorithm of that name or id; `named_by` says how it was looked for."""

    def __init__(self, name: str, named_by: Literal["name", "id", "neither"]) -> None:
        # The Python client looks for these first words.
        super().__init__(f"No such algorithm: {name}. Name it OWNER/NAME or by its UUID.")
        self.named_by = named_by


def find_algorithm(session: Session, name: str) -> Algorithm:
    """Return the algorithm with this UUID or OWNER/NAME.

    Raises:
        AlgorithmNotFoundError: there is none.
    """
    found = _find(session, name)
    if found is None:
        raise algorithm_not_found(name)
    return found


def find_visible_algorithm(session: Session, caller: Caller, name: str) -> Algorithm:
    """Return the algorithm with this UUID or OWNER/NAME, if the caller may know that it exists.

    It may know of all that it may read, and of every algorithm with a public version. Any other one does not exist for
    it: the error is the same, after the same statements.

    Raises:
        AlgorithmNotFoundError: there is none, or none that the caller may know of.
    """
    found = _find(session, name)
    if found is not None and caller.may_read(found):
        return found
    public = session.scalar(_PUBLIC_VERSION, {"algorithm": "" if found is None else found.id})
    if found is None or public is None:
        raise algorithm_not_found(name)
    return found


def _find(session: Session, name: str) -> Algorithm | None:
    owner, slash, algorithm_name = name.partition("/")
    if slash:
        return session.scalar(_BY_NAME, {"owner": owner, "name": algorithm_name})
    return session.scalar(_BY_ID, {"id": name.lower()})


def algorithm_not_found(name: str) -> AlgorithmNotFoundError:
    return AlgorithmNotFoundError(name, "name" if "/" in name else "id" if _is_uuid(name) else "neither")


def find_version(session: Session, algorithm: Algorithm, git_hash: str) -> Version:
    """Return the version with this commit hash, or with an unambiguous prefix of at least 7 characters.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: the prefix fits several.
    """
    git_hash = git_hash.lower()
    if not HASH_PREFIX.fullmatch(git_hash):
        raise NotFoundError(f"No version {git_hash!r}: name it by its commit hash, 7 characters of it or more.")
    found = session.scalars(_VERSIONS, {"algorithm": algorithm.id, **hash_range(git_hash)}).all()
    if not found:
        raise NotFoundError(f"{algorithm.path} has no version {git_hash}; compile that commit first.")
    if len(found) > 1:
        raise InvalidInputError(f"{git_hash} fits more than one version of {algorithm.path}; give more of the hash.")
    return found[0]


def with_version(session: Session, version_id: str) -> tuple[Algorithm, Version] | None:
    """Return a version with its algorithm; None: the algorithm was deleted."""
    found = session.execute(_WITH_VERSION, {"version": version_id}).one_or_none()
    return None if found is None else found._tuple()


def hash_range(prefix: str) -> dict[str, str]:
    return {"begins": prefix, "before": f"{prefix}{AFTER_HEXADECIMAL}"}


def image_build(session: Session, version: Version) -> Build | None:
    """Return the build whose image is the version's: the one it was published with, else the newest successful one."""
    if version.build_id is None:
        return session.scalar(_GOOD_BUILD, {"version": version.id})
    return session.scalar(_BOUND_BUILD, {"version": version.id, "build": version.build_id})


def newest_build(session: Session, algorithm: Algorithm, version: Version | None = None) -> Build | None:
    query = select(Build).where(Build.algorithm_id == algorithm.id)
    if version is not None:
        query = query.where(Build.version_id == version.id)
    return session.scalar(query.order_by(Build.seq.desc()).limit(1))


def readable_algorithms(caller: Caller) -> Select[tuple[str]] | None:
    """Return a query for the ids of the algorithms whose jobs and pushes the caller may read; None: all."""
    if caller.admin:
        return None
    query = select(Algorithm.id).where(Algorithm.owner == caller.owner)
    if caller.algorithms is None or f"{caller.owner}/*" in caller.algorithms:
        return query
    # Algorithms of other owners in the list are for calling only.
    listed = [entry.partition("/") for entry in caller.algorithms]
    return query.where(Algorithm.name.in_([name for owner, _, name in listed if owner == caller.owner]))


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
