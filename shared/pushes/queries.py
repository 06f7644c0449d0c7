"""The pushes of one version, which dashboards and scripts request often: statements that are built once."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, select

from shared.algorithms import HASH_HAS_PREFIX, HASH_PREFIX, hash_range
from shared.db.engine import Database
from shared.db.models import Algorithm, ImagePush, Version

_PUSHES = (
    select(*ImagePush.__table__.c, Algorithm.owner.label("owner"), Algorithm.name.label("name"))
    .join_from(Algorithm, Version, Version.algorithm_id == Algorithm.id)
    .join(ImagePush, ImagePush.version_id == Version.id)
    .where(Algorithm.deleted_at.is_(None), HASH_HAS_PREFIX)
    .order_by(ImagePush.seq)
)
_BY_NAME: Select[Any] = _PUSHES.where(Algorithm.owner == bindparam("owner"), Algorithm.name == bindparam("name"))
_BY_ID: Select[Any] = _PUSHES.where(Algorithm.id == bindparam("id"))


def pushes_of_version(database: Database, algorithm: str, git_hash: str) -> Sequence[Row[Any]]:
    """Return the push rows of a version, in the order of requests, each with `owner` and `name` of its algorithm.

    `algorithm` is OWNER/NAME or an id; `git_hash` may be a prefix. Return no row if they do not identify exactly one
    version; `shared.algorithms` finds the reason.
    """
    git_hash = git_hash.lower()
    if not HASH_PREFIX.fullmatch(git_hash):
        return []
    owner, slash, name = algorithm.partition("/")
    if slash:
        rows = database.ask(_BY_NAME, owner=owner, name=name, **hash_range(git_hash))
    else:
        rows = database.ask(_BY_ID, id=algorithm.lower(), **hash_range(git_hash))
    return rows if len({row.version_id for row in rows}) == 1 else []
