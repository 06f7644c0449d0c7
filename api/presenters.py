"""Responses made from several tables, in a fixed number of queries for a list of any length."""

from collections.abc import Mapping, Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, aliased

from api.proxy_headers import public_url
from api.schemas.jobs import JobResponse, JobSummaryResponse, present_job_summary
from api.schemas.pushes import PushResponse, present_push
from api.schemas.versions import BuildResponse, VersionResponse, present_build, present_version
from shared.db.models import Algorithm, Build, ImagePush, Job, JobKind, PushState, Refresh, Registry, Version
from shared.db.models.algorithms import PublishState
from shared.registries.circuit_breaker import waiting_reason
from shared.registries.defaults import HAS_DEFAULT_CREDENTIALS


def latest_version(session: Session, algorithm: Algorithm) -> Version | None:
    """Return the newest published version, or else the newest compiled one."""
    query = select(Version).where(Version.algorithm_id == algorithm.id).limit(1)
    published = query.where(Version.publish_state == PublishState.PUBLISHED).order_by(
        Version.published_at.desc(), Version.seq.desc()
    )
    return session.scalar(published) or session.scalar(query.order_by(Version.seq.desc()))


def present_versions(session: Session, algorithm: Algorithm, versions: Sequence[Version]) -> list[VersionResponse]:
    """Return versions of one algorithm, each with the build it was published with, or else its newest build."""
    published_with = {version.id: version.build_id for version in versions}
    rows = session.scalars(select(Build).where(Build.version_id.in_(published_with)).order_by(Build.seq))
    builds = {row.version_id: row for row in rows if published_with[row.version_id] in (None, row.id)}
    return _present_with_builds(session, algorithm, versions, builds)


def present_enqueued(session: Session, job: Job) -> VersionResponse:
    """Return the version of a compile or publish, with the build that the request created, joined or published."""
    algorithm = session.scalars(select(Algorithm).where(Algorithm.id == job.algorithm_id)).one()
    version = session.scalars(select(Version).where(Version.id == job.version_id)).one()
    build = session.scalars(select(Build).where(Build.id == job.build_id)).one()
    return _present_with_builds(session, algorithm, [version], {version.id: build})[0]


def _present_with_builds(
    session: Session, algorithm: Algorithm, versions: Sequence[Version], builds: Mapping[str, Build]
) -> list[VersionResponse]:
    pushes = _requested_pushes(session, [build.id for build in builds.values()])
    return [
        present_version(
            algorithm,
            version,
            builds.get(version.id),
            pushes.get(builds[version.id].id) if version.id in builds else None,
            public_url(),
        )
        for version in versions
    ]


def present_builds(session: Session, builds: Sequence[Build]) -> list[BuildResponse]:
    query = select(Version).where(Version.id.in_({build.version_id for build in builds}))
    versions = {row.id: row for row in session.scalars(query)}
    pushes = _requested_pushes(session, [build.id for build in builds])
    return [present_build(build, versions[build.version_id], pushes.get(build.id)) for build in builds]


def present_jobs(session: Session, jobs: Sequence[Job]) -> list[JobSummaryResponse]:
    algorithm_ids = {job.algorithm_id for job in jobs}
    push_ids = {job.push_id for job in jobs if job.push_id}
    refresh_ids = [job.id for job in jobs if job.kind == JobKind.REFRESH]
    names = {row.id: row.path for row in session.scalars(select(Algorithm).where(Algorithm.id.in_(algorithm_ids)))}
    pushes = {row.id: row for row in session.scalars(select(ImagePush).where(ImagePush.id.in_(push_ids)))}
    refreshes: dict[str, Refresh] = {}
    if refresh_ids:
        query = select(Refresh).where(Refresh.job_id.in_(refresh_ids))
        refreshes = {row.job_id: row for row in session.scalars(query)}
    return [
        present_job_summary(job, names.get(job.algorithm_id), pushes.get(job.push_id or ""), refreshes.get(job.id))
        for job in jobs
    ]


def present_job(session: Session, job: Job, *, of_all_algorithms: bool) -> JobResponse:
    """Return a job with its children: only those of its own algorithm, unless the caller may see all algorithms.

    The first push of a bulk retry is the parent of the others, which can belong to other owners.
    """
    query = select(Job).where(Job.parent_id == job.id).order_by(Job.seq)
    if not of_all_algorithms:
        query = query.where(Job.algorithm_id == job.algorithm_id)
    children = session.scalars(query).all()
    response, *child_responses = present_jobs(session, [job, *children])
    return JobResponse(**dict(response), children=child_responses)


def present_pushes(session: Session, pushes: Sequence[ImagePush]) -> list[PushResponse]:
    """Return the status of pushes, with the reason why a registry does not take a queued one."""
    queued = [push.id for push in pushes if push.state == PushState.QUEUED]
    reasons: dict[str, str | None] = {}
    if queued:
        rows = session.execute(
            select(ImagePush.id, Registry, or_(Job.credentials.is_not(None), HAS_DEFAULT_CREDENTIALS))
            .join(Registry, Registry.id == ImagePush.registry_id)
            .join(Job, Job.id == ImagePush.job_id)
            .where(ImagePush.id.in_(queued))
        )
        reasons = {push_id: waiting_reason(registry, own_credentials=own) for push_id, registry, own in rows}
    return [present_push(push, reasons.get(push.id)) for push in pushes]


def _requested_pushes(session: Session, build_ids: Sequence[str]) -> dict[str, PushResponse]:
    """Return the newest push that a compile or publish requested, by the id of its build."""
    parent = aliased(Job)
    # No condition on Job.kind and no ORDER BY: with either, SQLite may scan every push in the database.
    rows = session.execute(
        select(Job.seq, Job.build_id, ImagePush)
        .join(ImagePush, ImagePush.id == Job.push_id)
        .join(parent, parent.id == Job.parent_id)
        .where(Job.build_id.in_(build_ids), parent.kind != JobKind.PUSH)  # a push is the parent of retried ones
    )
    requested = sorted(rows, key=lambda row: row.seq)
    responses = present_pushes(session, [push for _, _, push in requested])
    return {build_id: response for (_, build_id, _), response in zip(requested, responses, strict=True)}
