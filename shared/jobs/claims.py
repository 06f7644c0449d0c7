"""Claims: which worker gets a job, by a conditional UPDATE and the database's clock."""

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Row, bindparam, case, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from shared.db.clock import now_ms
from shared.db.engine import Database
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, Owner, PushState, Registry
from shared.jobs.due import is_claimable
from shared.jobs.leases import Claim, FenceLostError, close_push_fence
from shared.registries.circuit_breaker import take_probe


def claim_job(database: Database, job_id: str, *, owner: str, lease_seconds: int) -> Claim | None:
    """Claim a due job for `owner`, or None when it is not due, not free, or somebody else's.

    The claim's number is raised in the same statement, and copied to the push row in the same transaction.
    """
    try:
        with database.writing() as session:
            return _claim(session, job_id, owner, lease_seconds)
    except (IntegrityError, FenceLostError):
        return None  # another worker took the place between the look and the UPDATE, or a newer push the row
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "40P01":  # PostgreSQL broke a deadlock: the sweep messages again
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
        session.connection().execute(_SERVED, {"owner": job.owner})
    elif job.build_id is not None:
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


_SERVED = update(Owner).where(Owner.username == bindparam("owner")).values(served_at=now_ms())


def _take(session: Session, job_id: str, owner: str, lease_seconds: int) -> Row[Any] | None:
    values = {"job": job_id, "worker": owner, "lease_ms": lease_seconds * 1000}
    # On the connection: the session would make the statement anew, to find what it changes among its objects.
    return session.connection().execute(_taking(), values).first()


@cache
def _taking() -> ReturningUpdate[Any]:
    # Made once, as everything that each push asks.
    lost = case((Job.state == JobState.RUNNING, 1), else_=0)
    return (
        update(Job)
        .where(Job.id == bindparam("job"), is_claimable())
        .values(
            state=JobState.RUNNING,
            claim=Job.claim + 1,
            losses=Job.losses + lost,
            lease_owner=bindparam("worker"),
            lease_expires_at=now_ms() + bindparam("lease_ms", type_=BigInteger()),
            started_at=func.coalesce(Job.started_at, now_ms()),
            next_attempt_at=None,
            dispatch_count=0,
        )
        .returning(*Job.__table__.c)
    )


def _lock_registry(session: Session, job_id: str) -> bool:
    """Hold the registry of a push, so that no two workers see the same last room in it; whether it is paused."""
    return session.scalar(_PAUSED_AT, {"job": job_id}) is not None


_PAUSED_AT = (
    select(Registry.paused_at)
    .where(Registry.id == select(Job.registry_id).where(Job.id == bindparam("job")).scalar_subquery())
    .with_for_update()
)


def _break_expired_locks(session: Session, job_id: str) -> bool:
    """Take the place from workers whose lease ran out; whether there were any.

    The claim is raised, so they find the fence closed.
    """
    place = select(Job.lock_name).where(Job.id == job_id).scalar_subquery()
    broken = session.execute(
        update(Job)
        .where(Job.lock_name == place, Job.id != job_id, Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms())
        .values(lease_owner=None, lease_expires_at=None, claim=Job.claim + 1)
        .returning(Job.push_id, Job.generation, Job.claim)
        .execution_options(synchronize_session=False)
    )
    rows = broken.all()
    for push_id, generation, claim in rows:
        close_push_fence(session, push_id, generation, claim)
    return bool(rows)


def _show_push_claimed(session: Session, job: Row[Any]) -> None:
    values = {
        "push": job.push_id,
        "held_generation": job.generation,
        "new_claim": job.claim,
        "new_attempt": job.tries + 1,
    }
    if session.connection().execute(_PUSH_CLAIMED, values).first() is None:
        raise FenceLostError("a newer push owns the row")


_PUSH_CLAIMED = (
    update(ImagePush)
    .where(ImagePush.id == bindparam("push"), ImagePush.generation == bindparam("held_generation"))
    .values(
        claim=bindparam("new_claim"),
        state=PushState.IN_PROGRESS,
        message="A worker prepares the push.",
        attempt=bindparam("new_attempt"),
        started_at=func.coalesce(ImagePush.started_at, now_ms()),
        progressed_at=now_ms(),
        done_bytes=0,
        layers_done=0,
    )
    .returning(ImagePush.id)
)


def _show_build_claimed(session: Session, job: Row[Any]) -> None:
    session.execute(
        update(Build)
        .where(Build.id == job.build_id)
        .values(status=BuildStatus.RUNNING, started_at=func.coalesce(Build.started_at, now_ms()))
        .execution_options(synchronize_session=False)
    )
