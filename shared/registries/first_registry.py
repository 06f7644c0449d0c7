"""The latch of LONGSHORE_PULL_FALLBACK=auto: from the first registry on, for good, only images in a registry run.

The row of a registry is kept when the registry is deleted, and nothing removes rows: the table is the latch.
"""

from weakref import WeakSet

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from shared.db.engine import Database, database
from shared.db.models import Algorithm, ImagePush, Registry, Version
from shared.db.models.algorithms import PublishState

_ANY_REGISTRY = select(Registry.seq).limit(1)
_UNPUSHED_VERSIONS = (
    select(func.count(Version.seq))
    .join(Algorithm, Algorithm.id == Version.algorithm_id)
    .where(
        Algorithm.deleted_at.is_(None),
        Version.publish_state == PublishState.PUBLISHED,
        ~exists(select(ImagePush.seq).where(ImagePush.version_id == Version.id)),
    )
)
_latched: WeakSet[Database] = WeakSet()
"""The databases in which this process has seen a registry. None of them loses it again."""


def was_any_registry_recorded() -> bool:
    """Return whether a registry was ever recorded here, also one that was deleted since."""
    present = database()
    if present not in _latched and present.ask(_ANY_REGISTRY):
        _latched.add(present)
    return present in _latched


def count_unpushed_versions(session: Session) -> int:
    """Return the number of published versions of which no push was ever requested."""
    return session.scalars(_UNPUSHED_VERSIONS).one()
