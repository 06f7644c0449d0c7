"""Stopping what was ordered: one job, or everything of an algorithm or a registry that is deleted."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from shared.db.models import Job, JobKind, JobState
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ConflictError, ErrorClass
from shared.jobs.dependencies import finish_publish
from shared.jobs.dispatch import JobMessage
from shared.jobs.transitions import force_end


def cancel_job(session: Session, job: Job) -> list[JobMessage]:
    """End a job that has not ended, with everything that waits for it; its worker stops within seconds.

    Raises:
        ConflictError: it has ended.
    """
    ended, messages = force_end(session, job, JobState.CANCELLED, "It was cancelled.")
    if not ended:
        raise ConflictError(f"The job {job.id} has ended ({job.state}); there is nothing to cancel.")
    if job.kind == JobKind.PUBLISH:
        finish_publish(session, job)
    return messages


def end_all_of_algorithm(session: Session, algorithm_id: str) -> list[JobMessage]:
    """End every job of an algorithm that is being deleted."""
    return _end_all(session, Job.algorithm_id == algorithm_id, "The algorithm was deleted.")


def end_all_of_registry(session: Session, registry_id: str) -> list[JobMessage]:
    """End every push to a registry that is being deleted."""
    return _end_all(session, Job.registry_id == registry_id, "The registry was deleted.")


def _end_all(session: Session, which: ColumnElement[bool], message: str) -> list[JobMessage]:
    messages: list[JobMessage] = []
    for job in session.scalars(select(Job).where(which, Job.state.in_(LIVE_STATES)).order_by(Job.seq)):
        messages += force_end(session, job, JobState.FAILED, message, error_class=ErrorClass.INVALID)[1]
        if job.kind == JobKind.PUBLISH:
            finish_publish(session, job)
    return messages
