"""Compile a commit: make a new build, or use the succeeded or running build of the same commit."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.commands.push import Enqueued, PushRequest, enqueue_pushes, lock_registries
from shared.db.clock import now_ms
from shared.db.engine import insert_if_absent
from shared.db.models import Algorithm, Build, BuildStatus, Job, JobKind, JobState, Version
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage


def enqueue_compile(
    session: Session,
    algorithm: Algorithm,
    git_hash: str,
    *,
    pushes: Sequence[PushRequest] | None = None,
    force: bool = False,
    refresh: bool = False,
    request_id: str | None = None,
) -> Enqueued:
    """Enqueue the build of a commit and the pushes of its image; without `pushes`, to the default registry.

    A succeeded build of the commit is used, and a running one is joined, unless `force` is set. `refresh` also builds
    again, and resolves the requirements again.

    Raises:
        NotFoundError: a push names an unknown registry.
    """
    requests = lock_registries(session, algorithm, pushes)
    insert_if_absent(session, Version, ("algorithm_id", "git_hash"), algorithm_id=algorithm.id, git_hash=git_hash)
    version = session.scalars(
        select(Version).where(Version.algorithm_id == algorithm.id, Version.git_hash == git_hash)
    ).one()
    lock_version(session, version.id)
    build = None if force or refresh else _usable_build(session, version)
    job = Job(
        kind=JobKind.COMPILE,
        owner=algorithm.owner,
        algorithm_id=algorithm.id,
        version_id=version.id,
        git_hash=git_hash,
        lock_name=f"version:{version.id}",
        request_id=request_id,
    )
    if build is not None and build.status == BuildStatus.SUCCEEDED:
        job.state = JobState.SUCCEEDED
        job.finished_at = session.scalar(select(now_ms()))
    elif build is not None:
        job.awaits_id = build.job_id
    session.add(job)
    session.flush()
    messages = []
    if build is None:
        build = Build(
            algorithm_id=algorithm.id,
            version_id=version.id,
            job_id=job.id,
            commit_sha=git_hash,
            refreshes_environment=refresh,
        )
        session.add(build)
        session.flush()
        messages.append(JobMessage(job.id, job.kind))
    job.build_id = build.id
    session.flush()
    messages += enqueue_pushes(session, algorithm, version, build, requests, parent=job, request_id=request_id)
    return Enqueued(job, messages, build, registry_ids=[request.registry_id for request in requests])


def _usable_build(session: Session, version: Version) -> Build | None:
    return session.scalar(
        select(Build)
        .where(
            Build.version_id == version.id,
            Build.status.in_((BuildStatus.QUEUED, BuildStatus.RUNNING, BuildStatus.SUCCEEDED)),
        )
        .order_by(Build.seq.desc())
        .limit(1)
    )
