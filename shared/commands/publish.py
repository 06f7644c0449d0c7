"""Publish a version: reserve its semantic version in the request's transaction; a failed publish frees it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.algorithms import newest_build
from shared.commands.push import Enqueued, PushRequest, enqueue_pushes, lock_registries
from shared.db.clock import now_ms
from shared.db.models import Algorithm, Build, BuildStatus, Job, JobKind, JobState, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError
from shared.fence import lock_version
from shared.jobs.handlers import HANDLERS


class AlreadyPublishedError(InvalidInputError):
    """Raised when the commit has a semantic version already."""


class VersionType(StrEnum):
    """The part of the semantic version that a publish raises."""

    MAJOR = "major"
    MINOR = "minor"
    REVISION = "revision"
    PATCH = "patch"
    """The same as `revision`."""


@dataclass(frozen=True)
class PublishOptions:
    """The options of a publish."""

    version_type: VersionType = VersionType.MINOR
    semantic_version: str | None = None
    """What the number must become; None: any."""
    callability: str | None = None
    """None: that of the predecessor, and of a first version that of the algorithm's settings."""
    release_notes: str | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    version: Version | None = None
    """None: the version of the newest build."""


def enqueue_publish(
    session: Session,
    algorithm: Algorithm,
    options: PublishOptions,
    *,
    pushes: Sequence[PushRequest] | None = None,
    request_id: str | None = None,
) -> Enqueued:
    """Publish the newest build, or wait for it, and push its image; without `pushes`, to the default registry.

    A publish of a version that is pending returns the earlier job.

    Raises:
        InvalidInputError: nothing was compiled, the build failed, the commit is published, or the number would be
            another one.
        NotFoundError: a push names an unknown registry.
    """
    # Two publishes of one algorithm wait for each other here, so that each sees the number that the other reserved.
    session.execute(select(Algorithm.id).where(Algorithm.id == algorithm.id).with_for_update())
    build = newest_build(session, algorithm, options.version)
    if build is None:
        raise InvalidInputError(f"Nothing of {algorithm.path} was compiled; compile it first.")
    requests = lock_registries(session, algorithm, pushes)
    lock_version(session, build.version_id)
    session.refresh(build)
    version = session.scalars(select(Version).where(Version.id == build.version_id)).one()
    session.refresh(version)
    if version.publish_state == PublishState.PENDING:
        _require_version(options, str(version.semantic_version), "is being published as")
        return Enqueued(
            session.scalars(select(Job).where(Job.id == version.publish_job_id)).one(), [], build, repeated=True
        )
    _refuse_unpublishable(version, build)
    job = _reserve(session, algorithm, version, build, options, request_id)
    messages = enqueue_pushes(session, algorithm, version, build, requests, parent=job, request_id=request_id)
    return Enqueued(job, messages, build, registry_ids=[request.registry_id for request in requests])


def next_version(reserved: Sequence[str], version_type: VersionType) -> str:
    """Return the semantic version after the highest reserved one; the first is 1.0.0, 0.1.0 or 0.0.1 by its type."""
    major, minor, revision = max(map(version_numbers, reserved), default=[0, 0, 0])
    if version_type == VersionType.MAJOR:
        return f"{major + 1}.0.0"
    if version_type == VersionType.MINOR:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{revision + 1}"


def version_numbers(semantic_version: str) -> list[int]:
    """Return the numbers by which versions are ordered: 0.10.0 comes after 0.9.0."""
    return [int(part) for part in semantic_version.split(".")]


def _require_version(options: PublishOptions, actual: str, verb: str) -> None:
    if options.semantic_version not in (None, actual):
        raise InvalidInputError(
            f"version_info.semantic_version: this commit {verb} {actual}, not {options.semantic_version}. Name that, "
            "or leave it out; version_info.version_type (major, minor or revision) decides which number is raised."
        )


def _callability(earlier: Sequence[Version]) -> str:
    """Return the callability of a version whose publish names none: that of its predecessor; a first one is private."""
    published = [version for version in earlier if version.published]
    if not published:
        return "private"
    return max(published, key=lambda version: version_numbers(version.semantic_version or "")).callability


def _refuse_unpublishable(version: Version, build: Build) -> None:
    if version.published:
        raise AlreadyPublishedError(
            f"Commit {version.git_hash[:12]} is published as {version.semantic_version}; compile a newer commit first."
        )
    if build.status in (BuildStatus.FAILED, BuildStatus.CANCELLED):
        raise InvalidInputError(
            f"The newest build ({build.id}) did not succeed ({build.status}): {build.message or 'see its log'} "
            "Fix the source and compile again."
        )


def _reserve(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    options: PublishOptions,
    request_id: str | None,
) -> Job:
    earlier = session.scalars(
        select(Version).where(Version.algorithm_id == algorithm.id, Version.semantic_version.is_not(None))
    ).all()
    number = next_version([one.semantic_version for one in earlier if one.semantic_version], options.version_type)
    _require_version(options, number, "would become")
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
    version.semantic_version = number
    version.publish_state, version.publish_job_id, version.build_id = PublishState.PENDING, job.id, build.id
    version.callability = options.callability or _callability(earlier)
    version.release_notes = options.release_notes
    version.sample_input = options.sample_input if options.sample_input is not None else algorithm.sample_input
    version.sample_output = options.sample_output
    session.flush()
    if built:
        job.finished_at = session.scalar(select(now_ms()))
        HANDLERS[JobKind.PUBLISH].ended(session, job)
        session.refresh(version)
    return job
