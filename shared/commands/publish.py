"""Ordering a publish: the semantic version is reserved in the request's own transaction and given back if it fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.algorithms import newest_build
from shared.commands.push import Enqueued, PushRequest, enqueue_push, lock_registries
from shared.db.clock import now_ms
from shared.db.models import Algorithm, Build, BuildStatus, Job, JobKind, JobState, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError
from shared.fence import lock_version
from shared.jobs.handlers import HANDLERS


class AlreadyPublishedError(InvalidInputError):
    """Raised when the commit has a semantic version already."""


class VersionType(StrEnum):
    """Which part of the semantic version a publish raises."""

    MAJOR = "major"
    MINOR = "minor"
    REVISION = "revision"
    PATCH = "patch"
    """The same as `revision`."""


@dataclass(frozen=True)
class PublishOptions:
    """What a publish says of the version."""

    version_type: VersionType = VersionType.REVISION
    callability: str = "private"
    release_notes: str | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    version: Version | None = None
    """The version to publish; none: that of the newest build."""


def enqueue_publish(
    session: Session,
    algorithm: Algorithm,
    order: PublishOptions,
    *,
    pushes: Sequence[PushRequest] = (),
    request_id: str | None = None,
) -> Enqueued:
    """Publish the newest build by creation, or wait for it; a repeated publish that is pending gives that one back.

    Raises:
        InvalidInputError: nothing was compiled, the build failed, or the commit is published.
        NotFoundError: a push names an unknown registry.
    """
    # Two publishes of one algorithm queue up here: each sees the numbers that the other took.
    session.execute(select(Algorithm.id).where(Algorithm.id == algorithm.id).with_for_update())
    build = newest_build(session, algorithm, order.version)
    if build is None:
        raise InvalidInputError(f"Nothing of {algorithm.path} was compiled; compile it first.")
    lock_registries(session, pushes)
    lock_version(session, build.version_id)
    session.refresh(build)
    version = session.scalars(select(Version).where(Version.id == build.version_id)).one()
    session.refresh(version)
    if version.publish_state == PublishState.PENDING:
        earlier = session.scalars(select(Job).where(Job.id == version.publish_job_id)).one()
        return Enqueued(earlier, [], build, repeated=True)
    _refuse_unpublishable(version, build)
    job = _reserve(session, algorithm, version, build, order, request_id)
    ordered = Enqueued(job, [], build)
    awaits = None if job.state == JobState.SUCCEEDED else job
    for push in pushes:
        ordered.messages += enqueue_push(
            session, algorithm, version, build, push, awaits=awaits, parent=job, request_id=request_id
        ).messages
    return ordered


def next_version(taken: Sequence[str], version_type: VersionType) -> str:
    """The semantic version after the highest one taken; the first is 0.1.0, 0.0.1 or 1.0.0 by its type."""
    major, minor, revision = max((_numbers(text) for text in taken), default=(0, 0, 0))
    if version_type == VersionType.MAJOR:
        return f"{major + 1}.0.0"
    if version_type == VersionType.MINOR:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{revision + 1}"


def _numbers(semantic_version: str) -> tuple[int, int, int]:
    major, minor, revision = (int(part) for part in semantic_version.split("."))
    return major, minor, revision


def _refuse_unpublishable(version: Version, build: Build) -> None:
    if version.published:
        raise AlreadyPublishedError(
            f"Commit {version.git_hash[:12]} is published as {version.semantic_version}; compile a newer commit first."
        )
    if build.status in (BuildStatus.FAILED, BuildStatus.CANCELLED):
        raise InvalidInputError(
            f"The newest build ({build.id}) was not done ({build.status}): {build.message or 'see its log'} "
            "Mend the source and compile again."
        )


def _reserve(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    order: PublishOptions,
    request_id: str | None,
) -> Job:
    taken = session.scalars(
        select(Version.semantic_version).where(
            Version.algorithm_id == algorithm.id, Version.semantic_version.is_not(None)
        )
    ).all()
    built = build.status == BuildStatus.SUCCEEDED
    job = Job(
        kind=JobKind.PUBLISH,
        state=JobState.SUCCEEDED if built else JobState.QUEUED,
        owner=algorithm.owner,
        algorithm_id=algorithm.id,
        version_id=version.id,
        git_hash=version.git_hash,
        build_id=build.id,
        awaits_id=None if built else build.job_id,
        lock_name=f"publish:{algorithm.id}",
        request_id=request_id,
    )
    session.add(job)
    session.flush()
    version.semantic_version = next_version([text for text in taken if text], order.version_type)
    version.publish_state, version.publish_job_id, version.build_id = PublishState.PENDING, job.id, build.id
    version.callability = order.callability
    version.release_notes = order.release_notes
    version.sample_input = order.sample_input if order.sample_input is not None else algorithm.sample_input
    version.sample_output = order.sample_output
    session.flush()
    if built:
        job.finished_at = session.scalar(select(now_ms()))
        HANDLERS[JobKind.PUBLISH].ended(session, job)
        session.refresh(version)
    return job
