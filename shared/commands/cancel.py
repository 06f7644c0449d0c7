"""Cancel one job, or end all jobs of an algorithm or a registry that is deleted."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from shared.db.models import Job, JobState
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ConflictError, ErrorClass
from shared.jobs.dispatch import JobMessage
from shared.jobs.transitions import force_end


def cancel_job(session: Session, job: Job) -> list[JobMessage]:
    """End a live job and the jobs that wait for it; its worker stops within seconds.

    Raises:
        ConflictError: the job has ended.
    """
    messages = force_end(session, job, JobState.CANCELLED, "It was cancelled.")
    if messages is None:
        raise ConflictError(f"The job {job.id} has ended ({job.state}); there is nothing to cancel.")
    return messages


def end_all_of_algorithm(session: Session, algorithm_id: str) -> list[JobMessage]:
    return _end_all(session, Job.algorithm_id == algorithm_id, "The algorithm was deleted.")


def end_all_of_registry(session: Session, registry_id: str) -> list[JobMessage]:
    return _end_all(session, Job.registry_id == registry_id, "The registry was deleted.")


def _end_all(session: Session, which: ColumnElement[bool], message: str) -> list[JobMessage]:
    return [
        to_send
        for job in session.scalars(select(Job).where(which, Job.state.in_(LIVE_STATES)).order_by(Job.seq))
        for to_send in force_end(session, job, JobState.FAILED, message, error_class=ErrorClass.INVALID) or []
    ]
