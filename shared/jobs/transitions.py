"""How a job ends or is requeued. A worker does it behind its fence; a caller (cancel, newer push) forces the end."""

import random
from collections.abc import Sequence
from functools import cache

from sqlalchemy import Select, bindparam, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Job, JobState, Registry
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass, WorkError
from shared.fence import HELD, Claim, FenceLostError, held_by, lock_claimed, lock_version
from shared.jobs.dependencies import has_dependents, resolve_dependents
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import registry_was_full
from shared.jobs.handlers import HANDLERS
from shared.jobs.leases import is_lock_awaited, messages_after_release
from shared.registries.circuit_breaker import pause_cause

PERMANENT_ERRORS = (ErrorClass.AUTH, ErrorClass.NOT_FOUND, ErrorClass.INVALID)
JITTER = 0.2
OWN_THROTTLE_SECONDS = 60
"""How long a push with credentials of its own waits after a 429 that names no time."""
_PAUSED_AT = select(Registry.paused_at).where(Registry.id == bindparam("registry"))
_FORCE_END = (
    update(Job)
    .where(Job.id == bindparam("job"), Job.state.in_(LIVE_STATES))
    .values(
        state=bindparam("new_state"),
        error_class=bindparam("new_error_class"),
        error_message=bindparam("new_message"),
        credentials=None,
        superseded_by=bindparam("newer_job"),
        finished_at=now_ms(),
    )
    .returning(Job)
    .execution_options(synchronize_session=False, populate_existing=True)
)
_END = (
    update(Job)
    .where(HELD)
    .values(
        state=bindparam("new_state"),
        finished_at=now_ms(),
        lease_owner=None,
        lease_expires_at=None,
        credentials=None,
        error_class=bindparam("new_error_class"),
        error_message=bindparam("new_message"),
    )
    .returning(Job)
    .execution_options(synchronize_session=False, populate_existing=True)
)


def succeed(session: Session, claim: Claim) -> list[JobMessage]:
    """End a claimed job as succeeded. In the same transaction the caller has locked it and written its other rows.

    Raises:
        FenceLostError: the job no longer belongs to this claim.
    """
    return _release_dependents(session, _end(session, claim, JobState.SUCCEEDED, None))


def _release_dependents(session: Session, job: Job) -> list[JobMessage]:
    """Resolve the jobs that waited for an ended job or its lock. There are seldom any, and one query says so."""
    values = {"awaited": job.id, "lock": job.lock_name, "registry": job.registry_id}
    if not session.connection().execute(_has_waiting_jobs(), values).scalar():
        return []
    return [*resolve_dependents(session, job), *messages_after_release(session, job)]


@cache
def _has_waiting_jobs() -> Select[tuple[bool]]:
    return select(or_(has_dependents(), is_lock_awaited(), registry_was_full()))


def fail_or_retry(
    session: Session, claim: Claim, error: WorkError, *, delays: Sequence[float], unavailable_delay: float
) -> list[JobMessage]:
    """Fail or requeue a claimed job, as the class of its error says (design: a job's life).

    Raises:
        FenceLostError: the job no longer belongs to this claim.
    """
    lock_claimed(session, claim)
    tries = session.scalars(select(Job.tries).where(Job.id == claim.job_id)).one()
    if error.error_class == ErrorClass.UNAVAILABLE:
        return _requeue(
            session,
            claim,
            error,
            delay=unavailable_delay,
            tries=tries,
            outlook=f"Looked at again in {unavailable_delay:.0f} s.",
        )
    # A registry that slows everybody down, or is paused for everybody, costs this push no attempt.
    throttled = error.error_class == ErrorClass.THROTTLED and error.at_registry
    if throttled and claim.own_credentials:
        # It may be the limit of these credentials, so nobody else waits.
        delay = _with_jitter(error.retry_after or OWN_THROTTLE_SECONDS)
        return _requeue(session, claim, error, delay=delay, tries=tries, outlook=f"Retried in {delay:.0f} s.")
    concerns_everybody = error.first_response and pause_cause(error, own_credentials=claim.own_credentials)
    if throttled or (concerns_everybody and session.scalar(_PAUSED_AT, {"registry": claim.registry_id}) is not None):
        return _requeue(session, claim, error, delay=0, tries=tries, outlook="It waits for the registry.")
    if error.error_class in PERMANENT_ERRORS or tries >= len(delays):
        job = _end(session, claim, JobState.FAILED, error)
        HANDLERS[job.kind].ended(session, job)
        return _release_dependents(session, job)
    delay = _with_jitter(error.retry_after or delays[tries])
    return _requeue(
        session,
        claim,
        error,
        delay=delay,
        tries=tries + 1,
        outlook=f"Retried in {delay:.0f} s (attempt {tries + 2}).",
    )


def _with_jitter(delay: float) -> float:
    """Return a delay made longer only, so that a registry that said when to come back is not asked sooner."""
    return delay * (1 + random.random() * JITTER)  # noqa: S311 - no secret


def force_end(
    session: Session,
    job: Job,
    state: JobState,
    message: str,
    *,
    error_class: ErrorClass | None = None,
    superseded_by: str | None = None,
) -> list[JobMessage] | None:
    """End a job whatever its worker does. Return the messages to send, or None when the job had ended before.

    Its worker notices at its next write or check (within a second), stops and releases the lock. Until then, or until
    the lease expires, no other job gets the lock.
    """
    lock_version(session, job.version_id)
    ended: Job | None = session.scalar(
        _FORCE_END,
        {
            "job": job.id,
            "new_state": state,
            "new_error_class": error_class,
            "new_message": message,
            "newer_job": superseded_by,
        },
    )
    if ended is None:
        return None
    if state != JobState.SUPERSEDED:  # the newer push writes the row
        HANDLERS[ended.kind].ended(session, ended)
    return resolve_dependents(session, ended)


def _end(session: Session, claim: Claim, state: JobState, error: WorkError | None) -> Job:
    job: Job | None = session.scalar(
        _END,
        {
            **held_by(claim),
            "new_state": state,
            "new_error_class": error.error_class if error else None,
            "new_message": error.message if error else None,
        },
    )
    if job is None:
        raise FenceLostError
    return job


def _requeue(
    session: Session, claim: Claim, error: WorkError, *, delay: float, tries: int, outlook: str
) -> list[JobMessage]:
    job = session.scalar(
        update(Job)
        .where(HELD)
        .values(
            state=JobState.QUEUED,
            tries=tries,
            lease_owner=None,
            lease_expires_at=None,
            next_attempt_at=now_ms() + int(delay * 1000),
            dispatched_at=None,
            error_class=error.error_class,
            error_message=error.message,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True),
        held_by(claim),
    )
    if job is None:
        raise FenceLostError
    HANDLERS[job.kind].requeued(session, job, f"{error.message} {outlook}")
    return messages_after_release(session, job)
