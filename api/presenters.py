"""Loading what is shown together, in a fixed number of queries whatever the length of the list."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from api.proxy_headers import public_url
from api.schemas.jobs import JobResponse, PartResponse, show_part
from api.schemas.pushes import PushResponse, show_push
from api.schemas.versions import BuildResponse, VersionResponse, show_build, show_version
from shared.db.models import Algorithm, Build, ImagePush, Job, JobKind, PushState, Refresh, Registry, Version
from shared.db.models.algorithms import PublishState
from shared.registries.circuit_breaker import waiting_reason


def latest_version(session: Session, algorithm: Algorithm) -> Version | None:
    """The newest published version, else the newest compiled one."""
    query = select(Version).where(Version.algorithm_id == algorithm.id).limit(1)
    published = query.where(Version.publish_state == PublishState.PUBLISHED).order_by(
        Version.published_at.desc(), Version.seq.desc()
    )
    return session.scalar(published) or session.scalar(query.order_by(Version.seq.desc()))


def shown_versions(session: Session, algorithm: Algorithm, versions: Sequence[Version]) -> list[VersionResponse]:
    """Versions of one algorithm with the builds that stand for them."""
    return _shown_with_builds(session, algorithm, versions, _builds_of(session, versions))


def shown_enqueued(session: Session, job: Job) -> VersionResponse:
    """What a compile or publish was about: its version, with the very build that the call made, joined or published."""
    algorithm = session.scalars(select(Algorithm).where(Algorithm.id == job.algorithm_id)).one()
    version = session.scalars(select(Version).where(Version.id == job.version_id)).one()
    build = session.scalars(select(Build).where(Build.id == job.build_id)).one()
    return _shown_with_builds(session, algorithm, [version], {version.id: build})[0]


def _shown_with_builds(
    session: Session, algorithm: Algorithm, versions: Sequence[Version], builds: Mapping[str, Build]
) -> list[VersionResponse]:
    pushes = _asked_pushes(session, [build.id for build in builds.values()])
    shown = []
    for version in versions:
        build = builds.get(version.id)
        push = pushes.get(build.id) if build else None
        shown.append(show_version(algorithm, version, build, push, public_url()))
    return shown


def shown_builds(session: Session, builds: Sequence[Build]) -> list[BuildResponse]:
    """Builds with the status of the push that each asked for."""
    ids = {build.version_id for build in builds}
    versions = {version.id: version for version in session.scalars(select(Version).where(Version.id.in_(ids)))}
    pushes = _asked_pushes(session, [build.id for build in builds])
    return [show_build(build, versions[build.version_id], pushes.get(build.id)) for build in builds]


def shown_jobs(session: Session, jobs: Sequence[Job]) -> list[PartResponse]:
    """Jobs with the names of their algorithms, and how far their pushes and refreshes are."""
    algorithm_ids = {job.algorithm_id for job in jobs}
    push_ids = {job.push_id for job in jobs if job.push_id}
    names = {row.id: row.path for row in session.scalars(select(Algorithm).where(Algorithm.id.in_(algorithm_ids)))}
    pushes = {row.id: row for row in session.scalars(select(ImagePush).where(ImagePush.id.in_(push_ids)))}
    refreshes = _refreshes_of(session, jobs)
    return [
        show_part(job, names.get(job.algorithm_id), pushes.get(job.push_id or ""), refreshes.get(job.id))
        for job in jobs
    ]


def _refreshes_of(session: Session, jobs: Sequence[Job]) -> dict[str, Refresh]:
    """What refreshes are about, by the ids of their jobs."""
    ids = [job.id for job in jobs if job.kind == JobKind.REFRESH]
    if not ids:
        return {}
    return {row.job_id: row for row in session.scalars(select(Refresh).where(Refresh.job_id.in_(ids)))}


def shown_job(session: Session, job: Job) -> JobResponse:
    """A job with its parts."""
    parts = session.scalars(select(Job).where(Job.parent_id == job.id).order_by(Job.seq)).all()
    shown, *children = shown_jobs(session, [job, *parts])
    return JobResponse(**dict(shown), children=children)


def shown_pushes(session: Session, pushes: Sequence[ImagePush]) -> list[PushResponse]:
    """Statuses of pushes; those that wait because of their registry say so."""
    waits = _waits(session, [push for push in pushes if push.state == PushState.QUEUED])
    return [show_push(push, waits.get(push.id)) for push in pushes]


def _waits(session: Session, queued: Sequence[ImagePush]) -> dict[str, str]:
    """What keeps registries from taking queued pushes, by the pushes' ids."""
    if not queued:
        return {}
    found = session.execute(
        select(ImagePush.id, Registry, Job.credentials.is_not(None))
        .join(Registry, Registry.id == ImagePush.registry_id)
        .join(Job, Job.id == ImagePush.job_id)
        .where(ImagePush.id.in_([push.id for push in queued]))
    )
    why = {push_id: waiting_reason(registry, own_credentials=own) for push_id, registry, own in found}
    return {push_id: text for push_id, text in why.items() if text is not None}


def _builds_of(session: Session, versions: Sequence[Version]) -> dict[str, Build]:
    """For each version the build it was published with, else its newest."""
    ids = [version.id for version in versions]
    bound = {version.id: version.build_id for version in versions}
    found: dict[str, Build] = {}
    for build in session.scalars(select(Build).where(Build.version_id.in_(ids)).order_by(Build.seq)):
        if bound[build.version_id] in (None, build.id):
            found[build.version_id] = build
    return found


def _asked_pushes(session: Session, build_ids: Sequence[str]) -> dict[str, PushResponse]:
    """For each build the status of the newest push that a compile or publish of it asked for."""
    parent = aliased(Job)
    # Neither the kind nor the order is asked for: both would tempt SQLite to go through every push there ever was.
    found = session.execute(
        select(Job.seq, Job.build_id, ImagePush)
        .join(ImagePush, ImagePush.id == Job.push_id)
        .join(parent, parent.id == Job.parent_id)  # other than a compile or publish, a retry has parts too
        .where(Job.build_id.in_(build_ids), parent.kind != JobKind.PUSH)
    )
    asked = sorted(found, key=lambda row: row.seq)
    shown = shown_pushes(session, [push for _, _, push in asked])
    return {build_id: push for (_, build_id, _), push in zip(asked, shown, strict=True)}
