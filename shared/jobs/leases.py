"""Leases: renew, check and release a worker's right to a job and to the lock that the job holds."""

from functools import cache

from sqlalchemy import ColumnElement, Select, bindparam, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Job, JobKind, JobState
from shared.db.models.jobs import IS_QUEUED
from shared.fence import HELD, Claim, FenceLostError, held_by
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import is_claimable, is_due, registry_was_full
from shared.jobs.handlers import HANDLERS, TASKS

WORKER_STOPPED = "Its worker stopped; the next free worker takes it over."
_STILL_HELD = select(Job.id).where(HELD)


def renew_lease(session: Session, claim: Claim, *, lease_seconds: int) -> None:
    """Prolong the lease.

    Raises:
        FenceLostError: the job no longer belongs to this claim.
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
        raise FenceLostError


def still_held(session: Session, claim: Claim) -> bool:
    return session.scalar(_STILL_HELD, held_by(claim)) is not None


def release_lock(session: Session, claim: Claim) -> list[JobMessage]:
    """Release the lock of a job that was ended from outside; return messages for the jobs that waited for it."""
    released = session.scalar(
        update(Job)
        .where(Job.id == claim.job_id, Job.claim == claim.number, Job.state != JobState.RUNNING)
        .values(lease_owner=None, lease_expires_at=None)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return [] if released is None else messages_after_release(session, released)


def messages_after_release(session: Session, released: Job) -> list[JobMessage]:
    """Return messages for the jobs that waited for what a job has released: its lock, and capacity of its registry."""
    waiting = {row.id: row.kind for row in session.execute(_awaiting_lock(), {"lock": released.lock_name})}
    registry_id = released.registry_id
    if registry_id is not None and session.scalar(select(registry_was_full()), {"registry": registry_id}):
        # One push has ended, so one can begin. Its first message came while the registry was full.
        next_push = (
            select(Job.id, Job.kind)
            .where(Job.registry_id == registry_id, Job.state == JobState.QUEUED, is_claimable())
            .order_by(Job.seq)
            .limit(1)
        )
        waiting |= {row.id: row.kind for row in session.execute(next_push)}
    return [JobMessage(job_id, kind) for job_id, kind in waiting.items() if kind in TASKS]


def is_lock_awaited() -> ColumnElement[bool]:
    """Return the condition that some job waits for the lock `lock`."""
    return _awaiting_lock().exists()


@cache
def _awaiting_lock() -> Select[tuple[str, JobKind]]:
    return select(Job.id, Job.kind).where(Job.lock_name == bindparam("lock"), Job.state == IS_QUEUED, is_due())


def release_all(session: Session, *, owner_prefix: str) -> list[JobMessage]:
    """Requeue every job of a stopping worker and release its locks.

    The jobs are due now and spend no attempt. Processes of the worker that still run have lost the fence.
    """
    released = session.scalars(
        update(Job)
        .where(Job.lease_owner.startswith(owner_prefix, autoescape=True), Job.state == JobState.RUNNING)
        .values(
            state=JobState.QUEUED,
            claim=Job.claim + 1,
            lease_owner=None,
            lease_expires_at=None,
            dispatched_at=None,
            next_attempt_at=now_ms(),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    for job in released:
        HANDLERS[job.kind].released(session, job, WORKER_STOPPED)
    session.execute(
        update(Job)
        .where(Job.lease_owner.startswith(owner_prefix, autoescape=True))
        .values(lease_owner=None, lease_expires_at=None)
        .execution_options(synchronize_session=False)
    )
    return [JobMessage(job.id, job.kind) for job in released]


def revoke_claims(session: Session, *, owner_prefix: str, kind: JobKind) -> None:
    """Stop the jobs of one kind of a stopping worker: their fence is lost, but they keep their locks.

    So no other worker begins with them before `release_all`, when they have cleaned up.
    """
    session.execute(
        update(Job)
        .where(
            Job.lease_owner.startswith(owner_prefix, autoescape=True), Job.state == JobState.RUNNING, Job.kind == kind
        )
        .values(claim=Job.claim + 1)
        .execution_options(synchronize_session=False)
    )
