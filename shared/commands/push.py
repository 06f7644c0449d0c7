"""What an order left behind.

Ordering a push: the row of (version, registry) is overwritten, an older push of it is superseded at once.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, Build, ImagePush, Job, JobKind, JobState, PushState, Registry, Version
from shared.db.models.jobs import LIVE_STATES
from shared.db.upsert import insert_if_absent
from shared.encryption import keyring
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage
from shared.jobs.transitions import force_end
from shared.pushes.progress import record_event
from shared.registries.rows import find_registry, fingerprint, place_of, repository_of, seal_for_job
from shared.registry.credentials import Credentials


@dataclass
class Enqueued:
    """The job of a call, and the messages to send once its transaction is committed."""

    job: Job
    messages: list[JobMessage] = field(default_factory=list)
    build: Build | None = None
    repeated: bool = False
    """The job is an earlier order's, which this one only repeats."""


@dataclass(frozen=True)
class PushRequest:
    """One registry that a caller wants the image in, with credentials for this push alone, if any."""

    registry_id: str
    credentials: Credentials | None = None


def lock_registries(session: Session, orders: Sequence[PushRequest]) -> None:
    """Lock the registries of several pushes, always in the same order (`shared.fence`).

    Raises:
        NotFoundError: no such registry.
    """
    for registry_id in sorted(order.registry_id for order in orders):
        find_registry(session, registry_id, kept=True)


def enqueue_push(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    order: PushRequest,
    *,
    awaits: Job | None = None,
    parent: Job | None = None,
    request_seq: int | None = None,
    request_id: str | None = None,
) -> Enqueued:
    """Order the push of a build's image to one registry; it is due when the awaited job, if any, has succeeded.

    `request_seq`: the number of the job that a caller asked for, where this only does that again. Without it this is
    what was asked for last, and executions pull what it brings.

    Raises:
        NotFoundError: no such registry.
    """
    # Locked, so that a registry deleted or changed at this moment is either refused here or sees this job.
    registry = find_registry(session, order.registry_id, kept=True)
    lock_version(session, version.id)
    repository = repository_of(registry, algorithm)
    image = f"{repository}:{version.git_hash}"
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
        lock_name=place_of(registry, algorithm, version.git_hash),
        semantic_version=_second_tag(version, parent),
        request_seq=request_seq,
        request_id=request_id,
    )
    push, messages = _take_row(session, version, registry, job, image)
    job.push_id, job.generation = push.id, push.generation
    if order.credentials is not None:
        job.registry_fingerprint = fingerprint(registry)
        job.credentials = seal_for_job(keyring(), job.id, job.registry_fingerprint, order.credentials)
    session.add(job)
    session.flush()
    if awaits is None:
        messages.append(JobMessage(job.id, job.kind))
    return Enqueued(job, messages, build)


def _second_tag(version: Version, parent: Job | None) -> str | None:
    """The semantic version, unless it is only reserved, for a publish that this push does not wait for."""
    sure = version.published or (parent is not None and parent.kind == JobKind.PUBLISH)
    return version.semantic_version if sure else None


def _take_row(
    session: Session, version: Version, registry: Registry, job: Job, image: str
) -> tuple[ImagePush, list[JobMessage]]:
    """Make the push row this job's: raise its generation, keep its last success, end the job that had it."""
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
        superseded, messages = _supersede(session, known, job)
        record_event(session, known.id, "superseded" if superseded else "overwritten")
    values = {
        "job": job.id,
        "new_url": registry.registry_url,
        "new_image": image,
        "new_message": "Waits for its build." if job.awaits_id is not None else "Waits for a worker.",
    }
    push: ImagePush = session.scalars(_TAKEN, {**same, **values}).one()
    return push, messages


_OF_ROW = (ImagePush.version_id == bindparam("version"), ImagePush.registry_id == bindparam("registry"))
_ROW = select(ImagePush).where(*_OF_ROW)
_TAKEN = (
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


def _supersede(session: Session, push: ImagePush, job: Job) -> tuple[bool, list[JobMessage]]:
    """End the live push of the row, if there is one; whether there was, and whom to message."""
    superseded, messages = False, list[JobMessage]()
    older = session.scalars(_LIVE, {"version": push.version_id, "push": push.id}).all()
    for old in older:
        message = "A newer push of the same version to the same registry took its place."
        freed = force_end(session, old, JobState.SUPERSEDED, message, superseded_by=job.id, locked=True)
        superseded, messages = superseded or freed is not None, [*messages, *(freed or [])]
    return superseded, messages


_LIVE = select(Job).where(
    Job.version_id == bindparam("version"), Job.push_id == bindparam("push"), Job.state.in_(LIVE_STATES)
)
