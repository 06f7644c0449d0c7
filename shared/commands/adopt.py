"""Adopt published versions: push those of an algorithm, of an owner or all to a registry that has not got them.

Such a push is a request like any other, so executions pull from the registry once it has succeeded. A version that was
pushed there before its publish is pushed again: its blobs are there, but the tag of its semantic version is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sqlalchemy import Select, and_, bindparam, case, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.commands.bulk import MAX_AT_ONCE, MAX_IN_TRANSACTION, BulkResult, Record, Skipped
from shared.commands.push import PushRequest, enqueue_push
from shared.commands.queue_limit import full_queue_message, room_in_queue
from shared.db.engine import Database
from shared.db.models import Algorithm, ImagePush, Job, PushState, Registry, Version
from shared.db.models.algorithms import PublishState
from shared.fence import lock_version
from shared.registries.rows import find_registry

_IS_LIVE = ImagePush.state.in_((PushState.QUEUED, PushState.IN_PROGRESS, PushState.STALLED))
_IS_THERE = and_(
    ImagePush.state == PushState.SUCCEEDED,
    ImagePush.missing_at.is_(None),
    ImagePush.registry_url == Registry.registry_url,
    or_(Job.id.is_(None), Job.semantic_version == Version.semantic_version),
)
_HAS_PUSH = case((or_(_IS_LIVE, _IS_THERE), 1), else_=0) == 1
_PUBLISHED = (
    select(Version, Algorithm, ImagePush)
    .join(Algorithm, Algorithm.id == Version.algorithm_id)
    .join(Registry, Registry.id == bindparam("registry"))
    .outerjoin(ImagePush, and_(ImagePush.version_id == Version.id, ImagePush.registry_id == Registry.id))
    .outerjoin(Job, Job.id == ImagePush.job_id)
    .where(Version.publish_state == PublishState.PUBLISHED, Algorithm.deleted_at.is_(None))
    .order_by(Version.seq)
)


@dataclass(frozen=True)
class Adoption:
    """The registry, and a selection of published versions; None selects all."""

    registry_id: str
    owner: str | None = None
    algorithm_id: str | None = None
    dry_run: bool = False
    """Whether to count only, and enqueue nothing."""


@dataclass
class _Rooms:
    """How many jobs of each owner may still be enqueued."""

    left: dict[str, int] = field(default_factory=dict)

    def full_owners(self) -> list[str]:
        return [owner for owner, left in self.left.items() if left <= 0]

    def take(self, session: Session, owner: str) -> bool:
        """Take a place in the queue of an owner; return False if it is full."""
        if owner not in self.left:
            self.left[owner] = room_in_queue(session, owner)
        if self.left[owner] <= 0:
            return False
        self.left[owner] -= 1
        return True


def adopt_versions(
    database: Database,
    adoption: Adoption,
    *,
    after: int = 0,
    request_id: str | None = None,
    record: Record | None = None,
) -> BulkResult:
    """Enqueue the pushes of published versions that the registry has not got, the oldest first, at most 1000.

    What it has, or is getting, is skipped. So is what exceeds the limit of an owner's queued jobs: call again when some
    have ended. `last` is set if there is more to enqueue now; a next call with it as `after` does not report again what
    was there before. A conflict with another request ends the call after the steps that are committed.

    Raises:
        NotFoundError: there is no such registry.
        sqlalchemy.exc.IntegrityError: another request has the idempotency key; nothing was enqueued.
    """
    with database.reading() as session:
        find_registry(session, adoption.registry_id)
        query = _selected(adoption).where(_HAS_PUSH).limit(0 if after else MAX_AT_ONCE)
        present = session.execute(query, _values(adoption))
        done = BulkResult(skipped=[_skip_present(adoption, *row._tuple()) for row in present])
    rooms = _Rooms()
    while True:
        left = MAX_AT_ONCE - done.enqueued
        with database.reading() as session:
            query = _missing(adoption, after).where(Algorithm.owner.not_in(rooms.full_owners()))
            rows = session.execute(query.limit(min(MAX_IN_TRANSACTION, max(1, left))), _values(adoption)).all()
        if not rows or left == 0:
            return replace(done, last=after if rows else None)
        version_ids = [version.id for version, _, _ in rows]
        try:
            done = _take_step(database, adoption, version_ids, done, rooms, request_id, record)
        except IntegrityError:
            if not done.jobs:
                raise
            return replace(done, last=after)
        after = rows[-1].Version.seq


def adopt_all(database: Database, adoption: Adoption) -> Iterator[BulkResult]:
    """Adopt in several calls, until nothing more can be enqueued now."""
    after: int | None = 0
    while after is not None:
        adopted = adopt_versions(database, adoption, after=after)
        yield adopted
        after = adopted.last


def _take_step(
    database: Database,
    adoption: Adoption,
    version_ids: list[str],
    done: BulkResult,
    rooms: _Rooms,
    request_id: str | None,
    record: Record | None,
) -> BulkResult:
    """Enqueue the pushes of these versions in one transaction, and return the result with them."""
    result = replace(done, jobs=[*done.jobs], skipped=[*done.skipped], messages=[*done.messages])
    with database.writing() as session:
        if not adoption.dry_run:
            # As everywhere: registries before versions, each in one order (`shared.fence`).
            find_registry(session, adoption.registry_id, for_share=True)
            for version_id in sorted(version_ids):
                lock_version(session, version_id)
        # Read again: another request may have enqueued some before they were locked.
        rows = session.execute(_missing(adoption).where(Version.id.in_(version_ids)), _values(adoption)).all()
        jobs = [
            job
            for version, algorithm, _ in rows
            for job in _adopt_one(session, adoption, version, algorithm, result, rooms, request_id)
        ]
        if jobs and record is not None:
            record(session, jobs)
    return result


def _adopt_one(
    session: Session,
    adoption: Adoption,
    version: Version,
    algorithm: Algorithm,
    result: BulkResult,
    rooms: _Rooms,
    request_id: str | None,
) -> list[Job]:
    build = image_build(session, version)
    reason = None
    if build is None:
        reason = "The version has no succeeded build; compile it first."
    elif not rooms.take(session, algorithm.owner):
        reason = f"{full_queue_message(algorithm.owner)} Then repeat the request."
    if build is None or reason is not None:
        result.skipped.append(Skipped(algorithm.path, version.git_hash, adoption.registry_id, str(reason)))
        return []
    result.enqueued += 1
    if adoption.dry_run:
        return []
    parent = session.scalar(select(Job).where(Job.id == result.jobs[0])) if result.jobs else None
    request = PushRequest(adoption.registry_id)
    enqueued = enqueue_push(session, algorithm, version, build, request, parent=parent, request_id=request_id)
    result.jobs.append(enqueued.job.id)
    result.messages += enqueued.messages
    return [enqueued.job]


def _selected(adoption: Adoption) -> Select[tuple[Version, Algorithm, ImagePush]]:
    query = _PUBLISHED
    if adoption.owner is not None:
        query = query.where(Algorithm.owner == adoption.owner)
    if adoption.algorithm_id is not None:
        query = query.where(Algorithm.id == adoption.algorithm_id)
    return query


def _missing(adoption: Adoption, after: int = 0) -> Select[tuple[Version, Algorithm, ImagePush]]:
    return _selected(adoption).where(~_HAS_PUSH, Version.seq > after)


def _values(adoption: Adoption) -> dict[str, str]:
    return {"registry": adoption.registry_id}


def _skip_present(adoption: Adoption, version: Version, algorithm: Algorithm, push: ImagePush) -> Skipped:
    if push.state == PushState.SUCCEEDED:
        reason = f"It is there already ({push.last_success_digest})."
    else:
        reason = f"A push there has not ended ({push.state})."
    return Skipped(algorithm.path, version.git_hash, adoption.registry_id, reason)
