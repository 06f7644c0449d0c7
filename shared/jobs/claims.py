"""Claim a job for a worker, by a conditional UPDATE and the database's clock."""

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Row, bindparam, case, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from shared.db.clock import now_ms
from shared.db.engine import Database
from shared.db.models import ImagePush, Job, JobState, Registry
from shared.fence import Claim, FenceLostError
from shared.jobs.due import is_claimable
from shared.jobs.handlers import HANDLERS
from shared.registries.circuit_breaker import reserve_probe
from shared.registries.defaults import HAS_DEFAULT_CREDENTIALS

_LOCK_REGISTRY = (
    select(Registry.paused_at, HAS_DEFAULT_CREDENTIALS)
    .join(Job, Job.registry_id == Registry.id)
    .where(Job.id == bindparam("job"))
    .with_for_update(of=Registry)
)


def claim_job(database: Database, job_id: str, *, owner: str, lease_seconds: int) -> Claim | None:
    """Claim a due job for the worker `owner`. Return None when it is not due, or another worker has it or its lock.

    The same statement raises the number of the claim; the same transaction copies it to the push row.
    """
    try:
        with database.writing() as session:
            return _claim(session, job_id, owner, lease_seconds)
    except (IntegrityError, FenceLostError):
        return None  # another worker acquired the lock first, or a newer push owns the row
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "40P01":  # PostgreSQL broke a deadlock; the sweep dispatches again
            return None
        raise


def _claim(session: Session, job_id: str, owner: str, lease_seconds: int) -> Claim | None:
    # The registry of a push is locked, so that two workers do not both take its last capacity.
    paused_at, has_default_credentials = session.execute(_LOCK_REGISTRY, {"job": job_id}).one_or_none() or (None, False)
    job = _claim_row(session, job_id, owner, lease_seconds)
    if job is None and _break_expired_locks(session, job_id):
        job = _claim_row(session, job_id, owner, lease_seconds)
    if job is None:
        return None
    HANDLERS[job.kind].claimed(session, job)
    own_credentials = job.credentials is not None or has_default_credentials
    if paused_at is not None:
        reserve_probe(session, job.registry_id, own_credentials=own_credentials, hold_seconds=lease_seconds)
    return Claim(
        job.id,
        job.claim,
        owner,
        push_id=job.push_id,
        generation=job.generation,
        build_id=job.build_id,
        registry_id=job.registry_id,
        own_credentials=own_credentials,
    )


def _claim_row(session: Session, job_id: str, owner: str, lease_seconds: int) -> Row[Any] | None:
    # On the connection: the session would rebuild the statement, to find which of its objects it changes.
    return (
        session.connection()
        .execute(_claiming(), {"job": job_id, "worker": owner, "lease_ms": lease_seconds * 1000})
        .first()
    )


@cache
def _claiming() -> ReturningUpdate[Any]:
    return (
        update(Job)
        .where(Job.id == bindparam("job"), is_claimable())
        .values(
            state=JobState.RUNNING,
            claim=Job.claim + 1,
            losses=Job.losses + case((Job.state == JobState.RUNNING, 1), else_=0),
            lease_owner=bindparam("worker"),
            lease_expires_at=now_ms() + bindparam("lease_ms", type_=BigInteger()),
            started_at=func.coalesce(Job.started_at, now_ms()),
            next_attempt_at=None,
            dispatch_count=0,
        )
        .returning(*Job.__table__.c)
    )


def _break_expired_locks(session: Session, job_id: str) -> bool:
    """Release the job's lock from workers whose lease has expired; return whether there were any.

    The raised claim makes them lose the fence.
    """
    lock_name = select(Job.lock_name).where(Job.id == job_id).scalar_subquery()
    rows = session.execute(
        update(Job)
        .where(
            Job.lock_name == lock_name, Job.id != job_id, Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms()
        )
        .values(lease_owner=None, lease_expires_at=None, claim=Job.claim + 1)
        .returning(Job.push_id, Job.generation, Job.claim)
        .execution_options(synchronize_session=False)
    ).all()
    for push_id, generation, claim in rows:
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == push_id, ImagePush.generation == generation)
            .values(claim=claim)
            .execution_options(synchronize_session=False)
        )
    return bool(rows)
