"""Ordering a compile: a new build, or the good or running one of the same commit."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.commands.push import Enqueued, PushRequest, enqueue_push, lock_registries
from shared.db.clock import now_ms
from shared.db.models import Algorithm, Build, BuildStatus, Job, JobKind, JobState, Version
from shared.db.upsert import insert_if_absent
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage


def enqueue_compile(
    session: Session,
    algorithm: Algorithm,
    git_hash: str,
    *,
    pushes: Sequence[PushRequest] = (),
    force: bool = False,
    refresh: bool = False,
    request_id: str | None = None,
) -> Enqueued:
    """Order a build of a commit, and the pushes of its image.

    A commit that was built well is not built again, one that is being built is joined, unless `force`. With `refresh`
    it is built again, and its requirements are resolved anew.

    Raises:
        NotFoundError: a push names an unknown registry.
    """
    lock_registries(session, pushes)
    version = _version_at(session, algorithm, git_hash)
    lock_version(session, version.id)
    existing = None if force or refresh else _usable_build(session, version)
    job = _compile_job(algorithm, version, request_id)
    if existing is None:
        session.add(job)
        session.flush()
        build = Build(
            algorithm_id=algorithm.id,
            version_id=version.id,
            job_id=job.id,
            commit_sha=git_hash,
            refreshes_environment=refresh,
        )
        session.add(build)
        session.flush()
        ordered = Enqueued(job, [JobMessage(job.id, job.kind)], build)
    else:
        build = existing
        _join(session, job, build)
        ordered = Enqueued(job, [], build)
    job.build_id = build.id
    session.flush()
    awaits = None if job.state == JobState.SUCCEEDED else job
    for push in pushes:
        ordered.messages += enqueue_push(
            session, algorithm, version, build, push, awaits=awaits, parent=job, request_id=request_id
        ).messages
    return ordered


def _version_at(session: Session, algorithm: Algorithm, git_hash: str) -> Version:
    insert_if_absent(session, Version, ("algorithm_id", "git_hash"), algorithm_id=algorithm.id, git_hash=git_hash)
    return session.scalars(
        select(Version).where(Version.algorithm_id == algorithm.id, Version.git_hash == git_hash)
    ).one()


def _usable_build(session: Session, version: Version) -> Build | None:
    usable = (BuildStatus.QUEUED, BuildStatus.RUNNING, BuildStatus.SUCCEEDED)
    return session.scalar(
        select(Build)
        .where(Build.version_id == version.id, Build.status.in_(usable))
        .order_by(Build.seq.desc())
        .limit(1)
    )


def _compile_job(algorithm: Algorithm, version: Version, request_id: str | None) -> Job:
    return Job(
        kind=JobKind.COMPILE,
        owner=algorithm.owner,
        algorithm_id=algorithm.id,
        version_id=version.id,
        git_hash=version.git_hash,
        lock_name=f"version:{version.id}",
        request_id=request_id,
    )


def _join(session: Session, job: Job, build: Build) -> None:
    if build.status == BuildStatus.SUCCEEDED:
        job.state = JobState.SUCCEEDED
        job.finished_at = session.scalar(select(now_ms()))
    else:
        job.awaits_id = build.job_id
    session.add(job)
    session.flush()
