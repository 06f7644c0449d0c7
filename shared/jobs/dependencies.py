"""Jobs that wait for another job (`Job.awaits_id`): due once it has succeeded, failed once it has not."""

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now_ms
from shared.db.models import Job, JobState
from shared.db.models.jobs import IS_QUEUED, LIVE_STATES
from shared.errors import ErrorClass
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage
from shared.jobs.handlers import HANDLERS

_DEPENDENTS = select(Job).where(Job.awaits_id == bindparam("awaited"), Job.state == IS_QUEUED)
_END_WITH_DEPENDENCY = [kind for kind, handler in HANDLERS.items() if handler.ends_with_dependency]


def resolve_dependents(session: Session, ended: Job) -> list[JobMessage]:
    """End the queued jobs that waited for an ended job, or return messages for those that are due now."""
    return [
        message
        for job in session.scalars(_DEPENDENTS, {"awaited": ended.id})
        for message in _resolve(session, job, ended)
    ]


def has_dependents() -> ColumnElement[bool]:
    """Return the condition that some queued job waits for the job `awaited`."""
    return _DEPENDENTS.exists()


def resolve_overdue(session: Session) -> list[JobMessage]:
    """Resolve the jobs that a crash left waiting for a job that has ended."""
    awaited = aliased(Job)
    overdue = session.execute(
        select(Job, awaited)
        .join(awaited, Job.awaits_id == awaited.id)
        .where(
            Job.state == IS_QUEUED,
            Job.awaits_id.is_not(None),
            awaited.state.not_in(LIVE_STATES),
            Job.kind.in_(_END_WITH_DEPENDENCY) | (awaited.state != JobState.SUCCEEDED),
        )
        .order_by(Job.seq)
    ).all()
    messages: list[JobMessage] = []
    for job, ended in overdue:
        lock_version(session, job.version_id)
        messages += _resolve(session, job, ended)
    return messages


def _resolve(session: Session, job: Job, ended: Job) -> list[JobMessage]:
    handler = HANDLERS[job.kind]
    if ended.state != JobState.SUCCEEDED:
        reason = (ended.error_message or "no reason was given").rstrip(".")
        state = JobState.FAILED
        error_class = ended.error_class or ErrorClass.INVALID
        message = f"The {HANDLERS[ended.kind].noun} that it waited for did not succeed ({ended.state}): {reason}."
    elif handler.ends_with_dependency:
        state, error_class, message = JobState.SUCCEEDED, None, None
    else:
        return [JobMessage(job.id, job.kind)]
    resolved = session.scalar(
        update(Job)
        .where(Job.id == job.id, Job.state == JobState.QUEUED)
        .values(state=state, finished_at=now_ms(), credentials=None, error_class=error_class, error_message=message)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if resolved is None:
        return []
    handler.ended(session, resolved)
    return resolve_dependents(session, resolved)
