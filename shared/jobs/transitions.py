"""How a job ends or goes round again. A worker's word is fenced; a caller's (cancel, newer push) ends it by decree."""

import random
from collections.abc import Sequence
from functools import cache

from sqlalchemy import Select, bindparam, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, PushState, Registry
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass, WorkError
from shared.instances.states import mark_failed, record_start_progress
from shared.jobs.dependencies import has_dependents, resolve_dependents
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import registry_was_full
from shared.jobs.leases import HELD, Claim, FenceLostError, held_by, is_lock_awaited, messages_after_release
from shared.jobs.locks import lock_claimed, lock_version
from shared.pushes.progress import record_event
from shared.refreshes import record_ended, record_requeued
from shared.registries.circuit_breaker import trouble_of
from shared.webhooks.events import EventType, emit_build

FAILS_AT_ONCE = (ErrorClass.AUTH, ErrorClass.NOT_FOUND, ErrorClass.INVALID)
JITTER = 0.2


def succeed(session: Session, claim: Claim, *, locked: bool = False) -> list[JobMessage]:
    """End a claimed job well. What it is about (build, push row) is written by the caller, in the same transaction.

    `locked`: the caller holds the job already (`lock_claimed`), before it wrote that.

    Raises:
        FenceLostError: the job is not this claim's any more.
    """
    if not locked:
        lock_claimed(session, claim)
    job = _leave(session, claim, JobState.SUCCEEDED, None)
    return _release_dependents(session, job)


def _release_dependents(session: Session, job: Job) -> list[JobMessage]:
    """Settle who waited for a job that has ended, and message who may begin now. Mostly nobody: that is one question."""
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
    """What an error's class says happens to a claimed job (design: a job's life).

    Raises:
        FenceLostError: the job is not this claim's any more.
    """
    lock_claimed(session, claim)
    tries = session.scalars(select(Job.tries).where(Job.id == claim.job_id)).one()
    if error.error_class == ErrorClass.UNAVAILABLE:
        ahead = f"Looked at again in {unavailable_delay:.0f} s."
        return _requeue(session, claim, error, delay=unavailable_delay, tries=tries, ahead=ahead)
    if error.error_class == ErrorClass.THROTTLED and error.at_registry:
        # The registry slows everybody down; that this push was the one to hear of it costs it no try.
        return _requeue(session, claim, error, delay=0, tries=tries, ahead="It waits for the registry.")
    concerns_everybody = error.first_answer and trouble_of(error, own_credentials=claim.own_credentials)
    if concerns_everybody and _is_paused(session, claim):
        return _requeue(session, claim, error, delay=0, tries=tries, ahead="It waits for the registry.")
    if error.error_class in FAILS_AT_ONCE or tries >= len(delays):
        return _fail(session, claim, error)
    # Jitter only adds: a registry that said when to come back is not asked sooner.
    delay = (error.retry_after or delays[tries]) * (1 + random.random() * JITTER)  # noqa: S311 - no secret
    ahead = f"Tried again in {delay:.0f} s (try {tries + 2})."
    return _requeue(session, claim, error, delay=delay, tries=tries + 1, ahead=ahead)


def _is_paused(session: Session, claim: Claim) -> bool:
    paused_at = select(Registry.paused_at).where(Registry.id == claim.registry_id)
    return session.scalar(paused_at) is not None


def fail(session: Session, claim: Claim, error: WorkError) -> list[JobMessage]:
    """End a claimed job as failed, with everything that waits for it.

    Raises:
        FenceLostError: the job is not this claim's any more.
    """
    lock_claimed(session, claim)
    return _fail(session, claim, error)


def _fail(session: Session, claim: Claim, error: WorkError) -> list[JobMessage]:
    job = _leave(session, claim, JobState.FAILED, error)
    _show_ended(session, job, JobState.FAILED, error.message)
    return _release_dependents(session, job)


def force_end(
    session: Session,
    job: Job,
    state: JobState,
    message: str,
    *,
    error_class: ErrorClass | None = None,
    superseded_by: str | None = None,
    locked: bool = False,
) -> tuple[bool, list[JobMessage]]:
    """End a job whatever its worker is doing; whether it had not ended already, and whom to message.

    The worker finds its fence closed at its next write or look (each second), stops and frees the place; until
    then, or until its lease runs out, nobody else enters it. `locked`: the caller holds the version already.
    """
    if not locked:
        lock_version(session, job.version_id)
    values = {
        "job": job.id,
        "new_state": state,
        "new_error_class": error_class,
        "new_message": message,
        "newer_job": superseded_by,
    }
    ended: Job | None = session.scalar(_FORCE_END, values)
    if ended is None:
        return False, []
    if state != JobState.SUPERSEDED:  # whoever supersedes writes the row himself
        _show_ended(session, ended, state, message)
    return True, resolve_dependents(session, ended)


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


def _leave(session: Session, claim: Claim, state: JobState, error: WorkError | None) -> Job:
    values = {
        "new_state": state,
        "new_error_class": error.error_class if error else None,
        "new_message": error.message if error else None,
    }
    job: Job | None = session.scalar(_LEAVING, {**held_by(claim), **values})
    if job is None:
        raise FenceLostError("the job was ended or taken over")
    return job


_LEAVING = (
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


def _requeue(
    session: Session, claim: Claim, error: WorkError, *, delay: float, tries: int, ahead: str
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
        raise FenceLostError("the job was ended or taken over")
    message = f"{error.message} {ahead}"
    if job.push_id is not None:
        _write_push(session, job, PushState.QUEUED, message)
        record_event(session, job.push_id, "retry", message)
    elif job.instance_id is not None:
        record_start_progress(session, job.instance_id, message)
    elif job.kind == JobKind.REFRESH:
        record_requeued(session, job.id, message)
    else:
        session.execute(
            update(Build).where(Build.id == job.build_id).values(status=BuildStatus.QUEUED, message=message)
        )
    return messages_after_release(session, job)


def _show_ended(session: Session, job: Job, state: JobState, message: str) -> None:
    if job.push_id is not None:
        shown = PushState.CANCELLED if state == JobState.CANCELLED else PushState.FAILED
        _write_push(session, job, shown, message)
        record_event(session, job.push_id, "ended")
    elif job.instance_id is not None:
        mark_failed(session, job.instance_id, message)
    elif job.kind == JobKind.REFRESH:
        record_ended(session, job.id, message)
    elif job.build_id is not None:
        status = BuildStatus.CANCELLED if state == JobState.CANCELLED else BuildStatus.FAILED
        # A job that only joined the build does not end it.
        ended = session.execute(
            update(Build)
            .where(Build.id == job.build_id, Build.job_id == job.id)
            .values(status=status, message=message, finished_at=now_ms())
            .returning(Build.id)
        )
        if ended.first() is not None:
            cancelled = status == BuildStatus.CANCELLED
            emit_build(session, job.build_id, EventType.BUILD_CANCELLED if cancelled else EventType.BUILD_FAILED)


def _write_push(session: Session, job: Job, state: PushState, message: str) -> None:
    # Called only when the job's own row was just changed in this transaction, so the generation is fence enough;
    # the raised claim shuts out what the worker that had it may still try to write.
    ended = state in (PushState.FAILED, PushState.CANCELLED)
    session.execute(
        update(ImagePush)
        .where(ImagePush.id == job.push_id, ImagePush.generation == job.generation)
        .values(
            state=state,
            message=message,
            claim=job.claim + 1,
            attempt=job.tries + 1,
            finished_at=now_ms() if ended else None,
        )
        .execution_options(synchronize_session=False)
    )
