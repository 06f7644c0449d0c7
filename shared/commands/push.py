"""Push a build's image to a registry: overwrite the row of (version, registry), and supersede an older live push."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from shared.db.engine import insert_if_absent
from shared.db.models import Algorithm, Build, ImagePush, Job, JobKind, JobState, PushState, Registry, Version
from shared.db.models.jobs import LIVE_STATES
from shared.encryption import keyring
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage
from shared.jobs.transitions import force_end
from shared.pushes.progress import record_event
from shared.registries.access import image_lock_name, repository_of
from shared.registries.credentials import encrypt_job_credentials, fingerprint
from shared.registries.defaults import lock_default
from shared.registries.rows import find_registry
from shared.registry.credentials import Credentials

_OF_ROW = (ImagePush.version_id == bindparam("version"), ImagePush.registry_id == bindparam("registry"))
_ROW = select(ImagePush).where(*_OF_ROW)
_OVERWRITE = (
    update(ImagePush)
    .where(*_OF_ROW)
    .values(
        generation=ImagePush.generation + 1,
        claim=0,
        job_id=bindparam("job"),
        registry_url=bindparam("new_url"),
        image=bindparam("new_image"),
        state=PushState.QUEUED,
        attempt=1,
        message=bindparam("new_message"),
        digest=None,
        started_at=None,
        finished_at=None,
        progressed_at=None,
        done_bytes=0,
        total_bytes=0,
        layers_done=0,
        layers_total=0,
    )
    .returning(ImagePush)
    .execution_options(synchronize_session=False, populate_existing=True)
)
_LIVE = select(Job).where(
    Job.version_id == bindparam("version"), Job.push_id == bindparam("push"), Job.state.in_(LIVE_STATES)
)


@dataclass
class Enqueued:
    """The job of a command, and the messages to send once its transaction is committed."""

    job: Job
    messages: list[JobMessage]
    build: Build | None = None
    repeated: bool = False
    """Whether the job is an earlier one, and nothing was enqueued."""
    registry_ids: Sequence[str] = ()
    """The registries that a compile or publish pushes to."""


@dataclass(frozen=True)
class PushRequest:
    """A registry to push to, with credentials for this push alone, if any."""

    registry_id: str
    credentials: Credentials | None = None


def lock_registries(
    session: Session, algorithm: Algorithm, requests: Sequence[PushRequest] | None
) -> Sequence[PushRequest]:
    """Lock the registries of several pushes, always in the same order (`shared.fence`). Return the requests.

    None: no registry is named, so the push goes to the algorithm's default, if there is one.

    Raises:
        NotFoundError: no such registry.
    """
    if requests is None:
        default = lock_default(session, algorithm)
        return [] if default is None else [PushRequest(default.registry.id)]
    for registry_id in sorted(request.registry_id for request in requests):
        find_registry(session, registry_id, for_share=True)
    return requests


def enqueue_push(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    request: PushRequest,
    *,
    awaits: Job | None = None,
    parent: Job | None = None,
    request_seq: int | None = None,
    request_id: str | None = None,
) -> Enqueued:
    """Enqueue the push of a build's image to one registry; it is due when the job `awaits`, if any, has succeeded.

    `request_seq`: the number of the caller's job that this push repeats. None: this is the latest request, and
    executions pull its image.

    Raises:
        NotFoundError: no such registry.
    """
    # Locked, so that a registry that is deleted or changed now is either refused here or sees this job.
    registry = find_registry(session, request.registry_id, for_share=True)
    lock_version(session, version.id)
    image = f"{repository_of(registry, algorithm)}:{version.git_hash}"
    job = Job(
        id=str(uuid.uuid4()),
        kind=JobKind.PUSH,
        owner=algorithm.owner,
        algorithm_id=algorithm.id,
        version_id=version.id,
        git_hash=version.git_hash,
        build_id=build.id,
        registry_id=registry.id,
        parent_id=parent.id if parent else None,
        awaits_id=awaits.id if awaits else None,
        lock_name=image_lock_name(registry, algorithm, version.git_hash),
        semantic_version=_second_tag(version, parent),
        request_seq=request_seq,
        request_id=request_id,
    )
    push, messages = _overwrite_row(session, version, registry, job, image)
    job.push_id, job.generation = push.id, push.generation
    if request.credentials is not None:
        job.registry_fingerprint = fingerprint(registry)
        job.credentials = encrypt_job_credentials(keyring(), job, request.credentials)
    session.add(job)
    session.flush()
    if awaits is None:
        messages.append(JobMessage(job.id, job.kind))
    return Enqueued(job, messages, build)


def enqueue_pushes(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    requests: Sequence[PushRequest],
    *,
    parent: Job,
    request_id: str | None,
) -> list[JobMessage]:
    """Enqueue the pushes that a compile or publish brings; they wait for it unless it has succeeded."""
    awaits = None if parent.state == JobState.SUCCEEDED else parent
    return [
        message
        for request in requests
        for message in enqueue_push(
            session, algorithm, version, build, request, awaits=awaits, parent=parent, request_id=request_id
        ).messages
    ]


def _second_tag(version: Version, parent: Job | None) -> str | None:
    """Return the semantic version, unless it is only reserved for a publish that this push does not wait for."""
    is_final = version.published or (parent is not None and parent.kind == JobKind.PUBLISH)
    return version.semantic_version if is_final else None


def _overwrite_row(
    session: Session, version: Version, registry: Registry, job: Job, image: str
) -> tuple[ImagePush, list[JobMessage]]:
    """Give the push row to this job: raise the generation, keep the last success, end the job that had the row."""
    same = {"version": version.id, "registry": registry.id}
    known: ImagePush | None = session.scalar(_ROW, same)
    messages: list[JobMessage] = []
    if known is None:
        insert_if_absent(
            session,
            ImagePush,
            ("version_id", "registry_id"),
            version_id=version.id,
            registry_id=registry.id,
            registry_url=registry.registry_url,
            job_id=job.id,
            image=image,
        )
    else:
        older = session.scalars(_LIVE, {"version": version.id, "push": known.id}).all()
        superseded = False
        for old in older:
            released = force_end(
                session,
                old,
                JobState.SUPERSEDED,
                "A newer push of the same version to the same registry took its place.",
                superseded_by=job.id,
            )
            superseded, messages = superseded or released is not None, [*messages, *(released or [])]
        record_event(session, known.id, "superseded" if superseded else "overwritten")
    overwritten = session.scalars(
        _OVERWRITE,
        {
            **same,
            "job": job.id,
            "new_url": registry.registry_url,
            "new_image": image,
            "new_message": "Waits for its build." if job.awaits_id is not None else "Waits for a worker.",
        },
    ).one()
    return overwritten, messages
