"""Claims and leases: who works on a job, by a conditional UPDATE and the database's clock."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, Select, and_, bindparam, case, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from shared.clock import now_ms
from shared.database import Database
from shared.errors import Stopped
from shared.jobs.due import lease_ran_out, may_begin, registry_was_full, time_has_come
from shared.jobs.nudges import TASKS, Nudge
from shared.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, Owner, PushState, Registry
from shared.models.jobs import IS_QUEUED
from shared.registry_health import take_probe


class FenceLost(Stopped):
    """Somebody newer owns the job, or it was ended: stop at once, write nothing."""


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job, until a newer claim, an end or the lease's."""

    job_id: str
    number: int
    """The fence: every write repeats it."""
    owner: str
    push_id: str | None = None
    generation: int = 0
    build_id: str | None = None
    registry_id: str | None = None
    own_credentials: bool = False
    """Whether the push brought credentials of its own."""


def claim_job(database: Database, job_id: str, *, owner: str, lease_seconds: int) -> Claim | None:
    """Claim a due job for `owner`, or None when it is not due, not free, or somebody else's.

    The claim's number is raised in the same statement, and copied to the push row in the same transaction.
    """
    try:
        with database.writing() as session:
            return _claim(session, job_id, owner, lease_seconds)
    except (IntegrityError, FenceLost):
        return None  # another worker took the place between the look and the UPDATE, or a newer push the row
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "40P01":  # PostgreSQL broke a deadlock: the sweep nudges again
            return None
        raise


def _claim(session: Session, job_id: str, owner: str, lease_seconds: int) -> Claim | None:
    paused = _lock_registry(session, job_id)
    job = _take(session, job_id, owner, lease_seconds)
    if job is None and _break_expired_locks(session, job_id):
        job = _take(session, job_id, owner, lease_seconds)
    if job is None:
        return None
    if job.kind == JobKind.PUSH:
        _show_push_claimed(session, job)
        if paused:
            own_credentials = job.credentials is not None
            take_probe(session, job.registry_id or "", own_credentials=own_credentials, hold_seconds=lease_seconds)
        session.connection().execute(_SERVED, {"the_owner": job.owner})
    else:
        _show_build_claimed(session, job)
    return Claim(
        job.id,
        job.claim,
        owner,
        push_id=job.push_id,
        generation=job.generation,
        build_id=job.build_id,
        registry_id=job.registry_id,
        own_credentials=job.credentials is not None,
    )


_SERVED = (
    update(Owner)
    .where(Owner.username == bindparam("the_owner"))
    .values(served_at=now_ms())
    .execution_options(synchronize_session=False)
)


def _take(session: Session, job_id: str, owner: str, lease_seconds: int) -> Row[Any] | None:
    values = {"the_job": job_id, "the_owner": owner, "lease_ms": lease_seconds * 1000}
    # On the connection: the session would make the statement anew, to find what it changes among its objects.
    return session.connection().execute(_taking(), values).first()


@cache
def _taking() -> ReturningUpdate[Any]:
    # Made once, as everything that each push asks.
    lost = case((Job.state == JobState.RUNNING, 1), else_=0)
    return (
        update(Job)
        .where(Job.id == bindparam("the_job"), may_begin())
        .values(
            state=JobState.RUNNING,
            claim=Job.claim + 1,
            losses=Job.losses + lost,
            lease_owner=bindparam("the_owner"),
            lease_expires_at=now_ms() + bindparam("lease_ms", type_=BigInteger()),
            started_at=func.coalesce(Job.started_at, now_ms()),
            next_attempt_at=None,
            nudges=0,
        )
        .returning(*Job.__table__.c)
    )


def _lock_registry(session: Session, job_id: str) -> bool:
    """Hold the registry of a push, so that no two workers see the same last room in it; whether it is paused."""
    return session.scalar(_PAUSED_AT, {"the_job": job_id}) is not None


_PAUSED_AT = (
    select(Registry.paused_at)
    .where(Registry.id == select(Job.registry_id).where(Job.id == bindparam("the_job")).scalar_subquery())
    .with_for_update()
)


def _break_expired_locks(session: Session, job_id: str) -> bool:
    """Take the place from workers whose lease ran out; whether there were any.

    The claim is raised, so they find the fence closed.
    """
    place = select(Job.lock_key).where(Job.id == job_id).scalar_subquery()
    broken = session.execute(
        update(Job)
        .where(Job.lock_key == place, Job.id != job_id, Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms())
        .values(lease_owner=None, lease_expires_at=None, claim=Job.claim + 1)
        .returning(Job.push_id, Job.generation, Job.claim)
        .execution_options(synchronize_session=False)
    )
    rows = broken.all()
    for push_id, generation, claim in rows:
        close_push_fence(session, push_id, generation, claim)
    return bool(rows)


def close_push_fence(session: Session, push_id: str | None, generation: int, claim: int) -> None:
    """Raise the claim on a push row with its job's, so that a slow worker's next write changes no row."""
    session.execute(
        update(ImagePush)
        .where(ImagePush.id == push_id, ImagePush.generation == generation)
        .values(claim=claim)
        .execution_options(synchronize_session=False)
    )


def _show_push_claimed(session: Session, job: Row[Any]) -> None:
    values = {
        "the_push": job.push_id,
        "the_generation": job.generation,
        "the_claim": job.claim,
        "the_attempt": job.tries + 1,
    }
    if session.connection().execute(_PUSH_CLAIMED, values).first() is None:
        raise FenceLost("a newer push owns the row")


_PUSH_CLAIMED = (
    update(ImagePush)
    .where(ImagePush.id == bindparam("the_push"), ImagePush.generation == bindparam("the_generation"))
    .values(
        claim=bindparam("the_claim"),
        state=PushState.IN_PROGRESS,
        message="A worker prepares the push.",
        attempt=bindparam("the_attempt"),
        started_at=func.coalesce(ImagePush.started_at, now_ms()),
        moved_at=now_ms(),
        done_bytes=0,
        layers_done=0,
    )
    .returning(ImagePush.id)
    .execution_options(synchronize_session=False)
)


def _show_build_claimed(session: Session, job: Row[Any]) -> None:
    session.execute(
        update(Build)
        .where(Build.id == job.build_id)
        .values(status=BuildStatus.RUNNING, started_at=func.coalesce(Build.started_at, now_ms()))
        .execution_options(synchronize_session=False)
    )


HELD = and_(Job.id == bindparam("held_job"), Job.claim == bindparam("held_claim"), Job.state == JobState.RUNNING)
"""The condition that every write under a claim repeats (rule 2); `held_by` has its values."""


def held_by(claim: Claim) -> dict[str, Any]:
    """The values for `HELD`."""
    return {"held_job": claim.job_id, "held_claim": claim.number}


def renew_lease(session: Session, claim: Claim, *, lease_seconds: int) -> None:
    """Prolong the lease.

    Raises:
        FenceLost: the job is not this claim's any more.
    """
    renewed = session.execute(
        update(Job)
        .where(HELD, Job.lease_owner == claim.owner)
        .values(lease_expires_at=now_ms() + lease_seconds * 1000)
        .returning(Job.id)
        .execution_options(synchronize_session=False),
        held_by(claim),
    )
    if renewed.first() is None:
        raise FenceLost("the job was ended or taken over")


def still_held(session: Session, claim: Claim) -> bool:
    """Whether the job is still this claim's: what the watching thread asks each half second."""
    return session.scalar(_STILL_HELD, held_by(claim)) is not None


_STILL_HELD = select(Job.id).where(HELD)


def release_place(session: Session, claim: Claim) -> list[Nudge]:
    """A worker has let go of a job that somebody else ended: free the place, nudge who waits for it."""
    freed = session.scalar(
        update(Job)
        .where(Job.id == claim.job_id, Job.claim == claim.number, Job.state != JobState.RUNNING)
        .values(lease_owner=None, lease_expires_at=None)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return [] if freed is None else nudges_for_room(session, freed)


def nudges_for_room(session: Session, freed: Job) -> list[Nudge]:
    """Nudges for who waits for what a job just let go: its place, and where the registry was full, room in that."""
    waiting = list(session.execute(_at_place(), {"the_place": freed.lock_key}))
    if freed.registry_id is not None and session.scalar(
        select(registry_was_full()), {"the_registry": freed.registry_id}
    ):
        # One for one: whoever finished makes room for the next. The nudge of that one came when there was none.
        at_registry = (
            select(Job.id, Job.kind)
            .where(Job.registry_id == freed.registry_id, Job.state == JobState.QUEUED, may_begin())
            .order_by(Job.seq)
            .limit(1)
        )
        waiting += session.execute(at_registry)
    return [Nudge(job_id, kind) for job_id, kind in dict(row._tuple() for row in waiting).items() if kind in TASKS]


def is_waited_for_at_place() -> ColumnElement[bool]:
    """Some job waits for the place `the_place`."""
    return _at_place().exists()


@cache
def _at_place() -> Select[tuple[str, JobKind]]:
    return select(Job.id, Job.kind).where(
        Job.lock_key == bindparam("the_place"), Job.state == IS_QUEUED, time_has_come()
    )


def hand_back(session: Session, *, owner_prefix: str) -> list[Nudge]:
    """Give back every job of a stopping worker: due at once, no try spent; its children find the fence closed."""
    rows = session.execute(
        update(Job)
        .where(Job.lease_owner.startswith(owner_prefix, autoescape=True), Job.state == JobState.RUNNING)
        .values(
            state=JobState.QUEUED,
            claim=Job.claim + 1,
            lease_owner=None,
            lease_expires_at=None,
            nudged_at=None,
            next_attempt_at=now_ms(),
        )
        .returning(Job.id, Job.kind, Job.push_id, Job.generation, Job.claim, Job.build_id)
        .execution_options(synchronize_session=False)
    ).all()
    for _job_id, _kind, push_id, generation, claim, build_id in rows:
        close_push_fence(session, push_id, generation, claim)
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == push_id, ImagePush.generation == generation)
            .values(state=PushState.QUEUED, message="Its worker stopped; the next free worker goes on.")
        )
        if push_id is None:
            session.execute(update(Build).where(Build.id == build_id).values(status=BuildStatus.QUEUED))
    session.execute(
        update(Job)
        .where(Job.lease_owner.startswith(owner_prefix, autoescape=True))
        .values(lease_owner=None, lease_expires_at=None)
        .execution_options(synchronize_session=False)
    )
    return [Nudge(row.id, row.kind) for row in rows]


def lost_jobs(session: Session) -> list[tuple[str, int]]:
    """Jobs whose lease ran out, each with the claim that was seen."""
    return [(row.id, row.claim) for row in session.execute(select(Job.id, Job.claim).where(lease_ran_out()))]
