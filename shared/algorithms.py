"""Finding algorithms and versions by the names that callers use."""

import re
import uuid
from typing import Literal

from sqlalchemy import Select, and_, bindparam, select
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, Build, BuildStatus, Version
from shared.errors import InvalidInputError, NotFoundError
from shared.keys import Caller

FULL_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
HASH_PREFIX = re.compile(r"[0-9a-f]{7,64}")
AFTER_HEXADECIMAL = "g"


class AlgorithmNotFoundError(NotFoundError):
    """Raised when there is no algorithm of that name or id; `named_by` says how it was looked for."""

    def __init__(self, name: str, named_by: Literal["name", "id", "neither"]) -> None:
        # The Python client looks for these first words.
        super().__init__(f"No such algorithm: {name}. Name it OWNER/NAME or by its UUID.")
        self.named_by = named_by


def find_algorithm(session: Session, name: str) -> Algorithm:
    """An algorithm by its UUID or as OWNER/NAME.

    Raises:
        AlgorithmNotFoundError: there is none.
    """
    owner, slash, algorithm_name = name.partition("/")
    found: Algorithm | None
    if slash:
        found = session.scalar(_BY_NAME, {"owner": owner, "name": algorithm_name})
    else:
        found = session.scalar(_BY_ID, {"id": name.lower()})
    if found is None:
        raise AlgorithmNotFoundError(name, "name" if slash else "id" if _is_uuid(name) else "neither")
    return found


# Made once, as everything that each request asks: to make a statement takes longer than to run it.
_ALGORITHM = select(Algorithm).where(Algorithm.deleted_at.is_(None))
_BY_NAME = _ALGORITHM.where(Algorithm.owner == bindparam("owner"), Algorithm.name == bindparam("name"))
_BY_ID = _ALGORITHM.where(Algorithm.id == bindparam("id"))


def find_version(session: Session, algorithm: Algorithm, git_hash: str) -> Version:
    """A version by its commit hash, or by an unambiguous prefix of 7 or more characters.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: the prefix fits several.
    """
    git_hash = git_hash.lower()
    if not HASH_PREFIX.fullmatch(git_hash):
        raise NotFoundError(f"No version {git_hash!r}: name it by its commit hash, 7 characters of it or more.")
    found = session.scalars(_VERSIONS, {"algorithm": algorithm.id, **beginning(git_hash)}).all()
    if not found:
        raise NotFoundError(f"{algorithm.path} has no version {git_hash}; compile that commit first.")
    if len(found) > 1:
        raise InvalidInputError(f"{git_hash} fits more than one version of {algorithm.path}; give more of the hash.")
    return found[0]


def with_version(session: Session, version_id: str) -> tuple[Algorithm, Version] | None:
    """A version and its algorithm; None where the algorithm was deleted."""
    found = session.execute(_WITH_VERSION, {"version": version_id}).one_or_none()
    return None if found is None else found._tuple()


_WITH_VERSION = (
    select(Algorithm, Version)
    .join(Version, Version.algorithm_id == Algorithm.id)
    .where(Version.id == bindparam("version"), Algorithm.deleted_at.is_(None))
)

BEGINS = and_(Version.git_hash >= bindparam("begins"), Version.git_hash < bindparam("before"))
"""A version's commit begins so; `beginning` has the values.

As a range, which an index answers whatever the collation, where LIKE would not.
"""


def beginning(prefix: str) -> dict[str, str]:
    """The values for `BEGINS`."""
    return {"begins": prefix, "before": f"{prefix}{AFTER_HEXADECIMAL}"}


_VERSIONS = select(Version).where(Version.algorithm_id == bindparam("algorithm"), BEGINS).order_by(Version.seq).limit(2)


def image_build(session: Session, version: Version) -> Build | None:
    """The build whose image stands for the version: the one that it was published with, else the newest good one."""
    found: Build | None
    if version.build_id is None:
        found = session.scalar(_GOOD_BUILD, {"version": version.id})
    else:
        found = session.scalar(_BOUND_BUILD, {"version": version.id, "build": version.build_id})
    return found


_GOOD_BUILD = (
    select(Build)
    .where(Build.version_id == bindparam("version"), Build.status == BuildStatus.SUCCEEDED)
    .order_by(Build.seq.desc())
    .limit(1)
)
_BOUND_BUILD = _GOOD_BUILD.where(Build.id == bindparam("build"))


def newest_build(session: Session, algorithm: Algorithm, version: Version | None = None) -> Build | None:
    """The newest build by creation, whatever became of it; of one version, if it is named."""
    query = select(Build).where(Build.algorithm_id == algorithm.id)
    if version is not None:
        query = query.where(Build.version_id == version.id)
    return session.scalar(query.order_by(Build.seq.desc()).limit(1))


def readable_algorithms(caller: Caller) -> Select[tuple[str]] | None:
    """The ids of the algorithms whose jobs and pushes a caller may read; None: of all."""
    if caller.admin:
        return None
    query = select(Algorithm.id).where(Algorithm.owner == caller.owner)
    if caller.algorithms is None or f"{caller.owner}/*" in caller.algorithms:
        return query
    # A list may name algorithms of other owners too; those are for calling.
    listed = [entry.partition("/") for entry in caller.algorithms]
    names = [name for owner, _, name in listed if owner == caller.owner]
    return query.where(Algorithm.name.in_(names))


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
