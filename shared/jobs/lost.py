"""Lost jobs, whose worker no longer renews their lease: requeue them, and release the locks that such workers held."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.models import Job, JobState
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass
from shared.fence import lock_version_of
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import lease_expired
from shared.jobs.handlers import HANDLERS
from shared.jobs.leases import messages_after_release
from shared.jobs.transitions import force_end


def lost_jobs(session: Session) -> list[tuple[str, int]]:
    """Return the ids of jobs whose lease has expired, each with the claim that was seen."""
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
    message = f"Its worker was lost (the lease expired at {rfc3339(expired_at)}); the next free worker takes it over."
    HANDLERS[job.kind].lost(session, job, message)
    return [JobMessage(job.id, job.kind)]


def release_abandoned_locks(session: Session) -> list[JobMessage]:
    """Release the locks of ended jobs whose worker was lost; return messages for the jobs that wait for them.

    Such a job was ended from outside while it ran (cancelled, superseded), so no other worker takes it over.
    """
    abandoned = session.scalars(
        update(Job)
        .where(Job.state.not_in(LIVE_STATES), Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms())
        .values(lease_owner=None, lease_expires_at=None)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    return [message for job in abandoned for message in messages_after_release(session, job)]
