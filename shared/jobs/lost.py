"""Jobs whose worker went away: reported, and given to the next worker; and the places that such a worker held."""

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, PushState
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ErrorClass
from shared.instances.states import record_start_progress
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import lease_expired
from shared.jobs.leases import messages_after_release
from shared.jobs.locks import lock_version_of
from shared.jobs.transitions import force_end
from shared.pushes.progress import record_event
from shared.refreshes import record_requeued


def requeue_lost(session: Session, job_id: str, *, claim: int, max_losses: int) -> list[JobMessage]:
    """Report a job whose lease ran out and make it due again; fail it when it has cost too many workers.

    Repeats the claim that was seen, so two sweeps at once requeue it once. No try is spent.
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
        message = f"Its worker was lost {job.losses} times; look at the workers' logs, then ask for it again."
        return force_end(session, job, JobState.FAILED, message, error_class=ErrorClass.LOST)[1]
    message = (
        f"The worker that had it was lost (its lease ran out at {rfc3339(expired_at)}); the next free worker takes "
        "it over."
    )
    _show_lost(session, job, message)
    return [JobMessage(job.id, job.kind)]


def release_abandoned_locks(session: Session) -> list[JobMessage]:
    """Take the places of ended jobs from workers that were lost before they let go of them, and message who waits there.

    Such a job ended by decree while it ran (cancelled, superseded), so nobody takes it over and nobody else lets go.
    """
    abandoned = session.scalars(
        update(Job)
        .where(Job.state.not_in(LIVE_STATES), Job.lease_owner.is_not(None), Job.lease_expires_at < now_ms())
        .values(lease_owner=None, lease_expires_at=None)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    return [job_message for job in abandoned for job_message in messages_after_release(session, job)]


def _show_lost(session: Session, job: Job, message: str) -> None:
    if job.instance_id is not None:
        record_start_progress(session, job.instance_id, message)
        return
    if job.kind == JobKind.REFRESH:
        record_requeued(session, job.id, message)
        return
    if job.push_id is None:
        session.execute(
            update(Build).where(Build.id == job.build_id).values(status=BuildStatus.QUEUED, message=message)
        )
        return
    same: tuple[ColumnElement[bool], ...] = (ImagePush.id == job.push_id, ImagePush.generation == job.generation)
    session.execute(update(ImagePush).where(*same).values(state=PushState.STALLED, message=message, claim=job.claim))
    record_event(session, job.push_id, "stalled-lost")
