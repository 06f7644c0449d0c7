"""Leases: a worker's right to a job while it lasts, and how it is kept, let go and taken away."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, PushState
from shared.db.models.jobs import IS_QUEUED
from shared.errors import WorkCancelledError
from shared.jobs.dispatch import TASKS, JobMessage
from shared.jobs.due import is_claimable, is_due, lease_expired, registry_was_full
from shared.refreshes import record_requeued

WORKER_STOPPED = "Its worker stopped; the next free worker goes on."


class FenceLostError(WorkCancelledError):
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


def close_push_fence(session: Session, push_id: str | None, generation: int, claim: int) -> None:
    """Raise the claim on a push row with its job's, so that a slow worker's next write changes no row."""
    session.execute(
        update(ImagePush)
        .where(ImagePush.id == push_id, ImagePush.generation == generation)
        .values(claim=claim)
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
        FenceLostError: the job is not this claim's any more.
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
        raise FenceLostError("the job was ended or taken over")


def still_held(session: Session, claim: Claim) -> bool:
    """Whether the job is still this claim's: what the watching thread asks each half second."""
    return session.scalar(_STILL_HELD, held_by(claim)) is not None


_STILL_HELD = select(Job.id).where(HELD)


def release_lock(session: Session, claim: Claim) -> list[JobMessage]:
    """A worker has let go of a job that somebody else ended: free the place, message who waits for it."""
    freed = session.scalar(
        update(Job)
        .where(Job.id == claim.job_id, Job.claim == claim.number, Job.state != JobState.RUNNING)
        .values(lease_owner=None, lease_expires_at=None)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return [] if freed is None else messages_after_release(session, freed)


def messages_after_release(session: Session, freed: Job) -> list[JobMessage]:
    """Messages for who waits for what a job just let go: its place, and where the registry was full, room in that."""
    waiting = list(session.execute(_awaiting_lock(), {"lock": freed.lock_name}))
    if freed.registry_id is not None and session.scalar(select(registry_was_full()), {"registry": freed.registry_id}):
        # One for one: whoever finished makes room for the next. The message of that one came when there was none.
        at_registry = (
            select(Job.id, Job.kind)
            .where(Job.registry_id == freed.registry_id, Job.state == JobState.QUEUED, is_claimable())
            .order_by(Job.seq)
            .limit(1)
        )
        waiting += session.execute(at_registry)
    return [JobMessage(job_id, kind) for job_id, kind in dict(row._tuple() for row in waiting).items() if kind in TASKS]


def is_lock_awaited() -> ColumnElement[bool]:
    """Some job waits for the place `lock`."""
    return _awaiting_lock().exists()


@cache
def _awaiting_lock() -> Select[tuple[str, JobKind]]:
    return select(Job.id, Job.kind).where(Job.lock_name == bindparam("lock"), Job.state == IS_QUEUED, is_due())


def release_all(session: Session, *, owner_prefix: str) -> list[JobMessage]:
    """Give back every job of a stopping worker: due at once, no try spent; its children find the fence closed."""
    rows = session.execute(
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
        .returning(Job.id, Job.kind, Job.push_id, Job.generation, Job.claim, Job.build_id)
        .execution_options(synchronize_session=False)
    ).all()
    for job_id, kind, push_id, generation, claim, build_id in rows:
        close_push_fence(session, push_id, generation, claim)
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == push_id, ImagePush.generation == generation)
            .values(state=PushState.QUEUED, message=WORKER_STOPPED)
        )
        if kind == JobKind.REFRESH:
            record_requeued(session, job_id, WORKER_STOPPED)
        elif push_id is None:
            session.execute(update(Build).where(Build.id == build_id).values(status=BuildStatus.QUEUED))
    session.execute(
        update(Job)
        .where(Job.lease_owner.startswith(owner_prefix, autoescape=True))
        .values(lease_owner=None, lease_expires_at=None)
        .execution_options(synchronize_session=False)
    )
    return [JobMessage(row.id, row.kind) for row in rows]


def close_fences(session: Session, *, owner_prefix: str, kind: JobKind) -> None:
    """Have a stopping worker let go of its jobs of one kind: their fence is closed, the place stays theirs meanwhile.

    Nobody else begins with them until `release_all`, by when they have cleared up what they had begun.
    """
    session.execute(
        update(Job)
        .where(
            Job.lease_owner.startswith(owner_prefix, autoescape=True), Job.state == JobState.RUNNING, Job.kind == kind
        )
        .values(claim=Job.claim + 1)
        .execution_options(synchronize_session=False)
    )


def lost_jobs(session: Session) -> list[tuple[str, int]]:
    """Jobs whose lease ran out, each with the claim that was seen."""
    return [(row.id, row.claim) for row in session.execute(select(Job.id, Job.claim).where(lease_expired()))]
