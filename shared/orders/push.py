"""Ordering a push: the row of (version, registry) is overwritten, an older push of it is superseded at once."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.inserting import insert_unless_there
from shared.jobs.endings import end_by_decree
from shared.jobs.locks import lock_version
from shared.jobs.nudges import Nudge
from shared.models import Algorithm, Build, ImagePush, Job, JobKind, JobState, PushState, Registry, Version
from shared.models.jobs import LIVE_STATES
from shared.orders.ordered import Ordered
from shared.pushes.events import record_event
from shared.registries import find_registry, fingerprint, place_of, repository_of, seal_for_job
from shared.registry.credentials import Credentials
from shared.sealing import keyring


@dataclass(frozen=True)
class PushOrder:
    """One registry that a caller wants the image in, with credentials for this push alone, if any."""

    registry_id: str
    credentials: Credentials | None = None


def lock_registries(session: Session, orders: Sequence[PushOrder]) -> None:
    """Lock the registries of several pushes, always in the same order (shared.jobs.locks).

    Raises:
        Refusal: 404, no such registry.
    """
    for registry_id in sorted(order.registry_id for order in orders):
        find_registry(session, registry_id, kept=True)


def order_push(
    session: Session,
    algorithm: Algorithm,
    version: Version,
    build: Build,
    order: PushOrder,
    *,
    awaits: Job | None = None,
    parent: Job | None = None,
    request_id: str | None = None,
) -> Ordered:
    """Order the push of a build's image to one registry; it is due when the awaited job, if any, has succeeded.

    Raises:
        Refusal: 404, no such registry.
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
        lock_key=place_of(registry, algorithm, version.git_hash),
        semantic_version=_second_tag(version, parent),
        request_id=request_id,
    )
    push, nudges = _take_row(session, version, registry, job, image)
    job.push_id, job.generation = push.id, push.generation
    if order.credentials is not None:
        job.registry_fingerprint = fingerprint(registry)
        job.credentials = seal_for_job(keyring(), job.id, job.registry_fingerprint, order.credentials)
    session.add(job)
    session.flush()
    if awaits is None:
        nudges.append(Nudge(job.id, job.kind))
    return Ordered(job, nudges, build)


def _second_tag(version: Version, parent: Job | None) -> str | None:
    """The semantic version, unless it is only reserved, for a publish that this push does not wait for."""
    sure = version.published or (parent is not None and parent.kind == JobKind.PUBLISH)
    return version.semantic_version if sure else None


def _take_row(
    session: Session, version: Version, registry: Registry, job: Job, image: str
) -> tuple[ImagePush, list[Nudge]]:
    """Make the push row this job's: raise its generation, keep its last success, end the job that had it."""
    same = (ImagePush.version_id == version.id, ImagePush.registry_id == registry.id)
    known = session.scalar(select(ImagePush).where(*same))
    fresh = known is None and insert_unless_there(
        session,
        ImagePush,
        ("version_id", "registry_id"),
        version_id=version.id,
        registry_id=registry.id,
        registry_url=registry.registry_url,
        job_id=job.id,
        image=image,
    )
    nudges: list[Nudge] = []
    superseded = False
    if known is not None:
        superseded, nudges = _supersede(session, known, job)
    push = session.scalars(
        select(ImagePush).where(*same).with_for_update().execution_options(populate_existing=True)
    ).one()
    if not fresh:
        record_event(session, push.id, "superseded" if superseded else "overwritten")
    push.generation += 1
    push.claim = 0
    push.job_id = job.id
    push.registry_url, push.image = registry.registry_url, image
    push.state, push.attempt = PushState.QUEUED, 1
    push.message = "Waits for its build." if job.awaits_id is not None else "Waits for a worker."
    push.digest = push.started_at = push.finished_at = push.moved_at = None
    push.done_bytes = push.total_bytes = push.layers_done = push.layers_total = 0
    session.flush()
    return push, nudges


def _supersede(session: Session, push: ImagePush, job: Job) -> tuple[bool, list[Nudge]]:
    """End the live push of the row, if there is one; whether there was, and whom to nudge."""
    superseded, nudges = False, list[Nudge]()
    of_row = (Job.version_id == push.version_id, Job.push_id == push.id)
    older = session.scalars(select(Job).where(*of_row, Job.state.in_(LIVE_STATES))).all()
    for old in older:
        message = "A newer push of the same version to the same registry took its place."
        ended, freed = end_by_decree(session, old, JobState.SUPERSEDED, message, superseded_by=job.id, locked=True)
        superseded, nudges = superseded or ended, [*nudges, *freed]
    return superseded, nudges
