"""Lost jobs and stalled pushes, as the sweep finds them.

A lost job, whose worker no longer renews the lease, is requeued, and the locks of such workers are released. A push is
reported as stalled if it is unclaimed without a live worker, lost, or without progress. A backlog is no stall, nor is a
push that waits for its next attempt, its build or a paused registry. Every UPDATE repeats the state that was seen, so
that two sweeps at the same time report a stall once.
"""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now_ms, rfc3339
from shared.db.models import ImagePush, Job, JobState, PushState, WorkerProcess
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass
from shared.fence import lock_version_of
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import dependencies_met, lease_expired, lock_is_free, registry_accepts
from shared.jobs.handlers import HANDLERS
from shared.jobs.leases import messages_after_release
from shared.jobs.queues import Queues
from shared.jobs.transitions import force_end
from shared.jobs.worker_processes import MAX_SILENCE_MS
from shared.pushes.progress import record_event


def report_unclaimed(session: Session, *, after_seconds: int) -> list[str]:
    """Mark the due pushes that wait because no worker lives on their queue; return the ids of their rows."""
    awaited = aliased(Job)
    awaited_ended = select(awaited.finished_at).where(awaited.id == Job.awaits_id).scalar_subquery()
    due_since = func.coalesce(Job.next_attempt_at, awaited_ended, Job.created_at)
    no_worker = ~exists(
        select(WorkerProcess.seq).where(
            WorkerProcess.queues.contains(f",{Queues.PUSHES},"), WorkerProcess.seen_at > now_ms() - MAX_SILENCE_MS
        )
    )
    conditions = (
        Job.state == JobState.QUEUED,
        due_since < now_ms() - after_seconds * 1000,
        dependencies_met(),
        lock_is_free(),
        registry_accepts(),
        no_worker,
    )
    return _report(
        session,
        PushState.QUEUED,
        due_since,
        conditions,
        "stalled-unclaimed",
        f"No worker has claimed it since {{since}}, and none is alive on the queue {Queues.PUSHES!r}; "
        "it goes on as soon as one is (`longshore worker --queues pushes`).",
    )


def report_no_progress(session: Session, *, after_seconds: int) -> list[str]:
    """Mark the claimed pushes that transfer no byte though the lease is renewed; return the ids of their rows."""
    conditions = (
        Job.state == JobState.RUNNING,
        Job.lease_expires_at >= now_ms(),
        ImagePush.progressed_at < now_ms() - after_seconds * 1000,
    )
    return _report(
        session,
        PushState.IN_PROGRESS,
        ImagePush.progressed_at,
        conditions,
        "stalled-no-progress",
        "No byte has moved since {since}, though its worker is alive; it goes on by itself when the registry responds, "
        "and a re-push starts it again.",
    )


def _report(
    session: Session,
    state: PushState,
    since: SQLColumnExpression[int | None],
    conditions: Iterable[ColumnElement[bool]],
    kind: str,
    message: str,
) -> list[str]:
    """Mark the pushes in a state that meet the conditions; `message` has a place for the time `since`."""
    seen = session.execute(
        select(ImagePush.id, ImagePush.generation, ImagePush.claim, since)
        .join(Job, and_(Job.push_id == ImagePush.id, Job.generation == ImagePush.generation))
        .where(ImagePush.state == state, *conditions)
    ).all()
    marked = []
    for push_id, generation, claim, stalled_since in seen:
        row = session.execute(
            update(ImagePush)
            .where(
                ImagePush.id == push_id,
                ImagePush.generation == generation,
                ImagePush.claim == claim,
                ImagePush.state == state,
            )
            .values(state=PushState.STALLED, message=message.format(since=rfc3339(stalled_since)))
            .returning(ImagePush.id)
            .execution_options(synchronize_session=False)
        ).first()
        if row is not None:
            record_event(session, push_id, kind)
            marked.append(push_id)
    return marked


def lost_jobs(session: Session) -> list[tuple[str, int]]:
    return [(row.id, row.claim) for row in session.execute(select(Job.id, Job.claim).where(lease_expired()))]


def requeue_lost(session: Session, job_id: str, *, claim: int, max_losses: int) -> list[JobMessage]:
    """Requeue a job whose lease has expired; fail it after `max_losses` lost workers. No attempt is spent.

    `claim` is the claim that was seen, so that two sweeps at the same time requeue the job once.
    """
    lock_version_of(session, job_id)
    expired_at = session.scalar(select(Job.lease_expires_at).where(Job.id == job_id, Job.claim == claim))
    job = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.claim == claim, lease_expired())
        .values(
            state=JobState.QUEUED,
            claim=Job.claim + 1,
            losses=Job.losses + 1,
            lease_owner=None,
            lease_expires_at=None,
            next_attempt_at=None,
            dispatched_at=now_ms(),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if job is None:
        return []
    if job.losses >= max_losses:
        message = f"Its worker was lost {job.losses} times; look at the workers' logs, then start it again."
        return force_end(session, job, JobState.FAILED, message, error_class=ErrorClass.LOST) or []
    HANDLERS[job.kind].lost(
        session,
        job,
        f"Its worker was lost (the lease expired at {rfc3339(expired_at)}); the next free worker takes it over.",
    )
    return [JobMessage(job.id, job.kind)]


def release_abandoned_locks(session: Session) -> list[JobMessage]:
    """Release the locks of ended jobs whose worker was lost; return messages for the jobs that wait for them.

    Such a job was ended from outside while it ran (cancelled, superseded), so no other worker takes it over.
    """
    return [
        message
        for job in session.scalars(
            update(Job)
            .where(Job.state.not_in(LIVE_STATES), Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms())
            .values(lease_owner=None, lease_expires_at=None)
            .returning(Job)
            .execution_options(synchronize_session=False, populate_existing=True)
        ).all()
        for message in messages_after_release(session, job)
    ]
