"""Which runners a refresh is about: the servings that take calls, of one version, one registry or all."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Algorithm, Instance, InstanceState, Version
from shared.refreshes.options import RefreshOptions
from shared.refreshes.progress import RefreshStep

Runner = tuple[Instance, Algorithm, Version]


def matching_runners(session: Session, options: RefreshOptions) -> list[Runner]:
    """What takes calls at the moment and is meant, oldest first."""
    query = (
        select(Instance, Algorithm, Version)
        .join(Algorithm, Algorithm.id == Instance.algorithm_id)
        .join(Version, Version.id == Instance.version_id)
        .where(Instance.state == InstanceState.READY)
        .order_by(Instance.seq)
    )
    if options.version_id is not None:
        query = query.where(Instance.version_id == options.version_id)
    if options.registry_id is not None:
        query = query.where(Instance.registry_id == options.registry_id)
    return [row._tuple() for row in session.execute(query)]


def steps_of(runners: list[Runner]) -> list[RefreshStep]:
    """One entry for each."""
    return [
        RefreshStep(f"{algorithm.path}@{version.git_hash}", instance_id=instance.id) for instance, algorithm, version in runners
    ]
