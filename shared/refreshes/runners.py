"""Which runners a refresh is about: the servings that take calls, of one version, one registry or all."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Algorithm, Serving, ServingState, Version
from shared.refreshes.options import RefreshOptions
from shared.refreshes.progress import Entry

Runner = tuple[Serving, Algorithm, Version]


def matching_runners(session: Session, options: RefreshOptions) -> list[Runner]:
    """What takes calls at the moment and is meant, oldest first."""
    query = (
        select(Serving, Algorithm, Version)
        .join(Algorithm, Algorithm.id == Serving.algorithm_id)
        .join(Version, Version.id == Serving.version_id)
        .where(Serving.state == ServingState.READY)
        .order_by(Serving.seq)
    )
    if options.version_id is not None:
        query = query.where(Serving.version_id == options.version_id)
    if options.registry_id is not None:
        query = query.where(Serving.registry_id == options.registry_id)
    return [row._tuple() for row in session.execute(query)]


def entries_of(runners: list[Runner]) -> list[Entry]:
    """One entry for each."""
    return [
        Entry(f"{algorithm.path}@{version.git_hash}", serving_id=serving.id) for serving, algorithm, version in runners
    ]
