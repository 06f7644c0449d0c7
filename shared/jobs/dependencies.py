"""Jobs that wait for another: due once it succeeded, ended with it when it did not. A relation of rows, no chain."""

from typing import Any

from sqlalchemy import ColumnElement, bindparam, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now_ms
from shared.db.models import ImagePush, Job, JobKind, JobState, PushState, Version
from shared.db.models.algorithms import PublishState
from shared.db.models.jobs import IS_QUEUED
from shared.errors import ErrorClass
from shared.jobs.dispatch import JobMessage
from shared.jobs.locks import lock_version
from shared.pushes.progress import record_event

WAITED_FOR = {JobKind.COMPILE: "build", JobKind.PUBLISH: "publish", JobKind.PUSH: "push"}
"""What other jobs wait for; nobody waits for the rest by a relation of rows."""


def resolve_dependents(session: Session, ended: Job) -> list[JobMessage]:
    """Carry an end over to the queued jobs that waited for it; the messages of those that are due now."""
    messages: list[JobMessage] = []
    for job in session.scalars(_DEPENDENTS, {"awaited": ended.id}):
        messages += _resolve(session, job, ended)
    return messages


def has_dependents() -> ColumnElement[bool]:
    """Some queued job waits for the job `awaited`."""
    return _DEPENDENTS.exists()


_DEPENDENTS = select(Job).where(Job.awaits_id == bindparam("awaited"), Job.state == IS_QUEUED)


def resolve_overdue(session: Session) -> list[JobMessage]:
    """Settle the jobs whose awaited job has ended without them: what a crash between two rows would have left."""
    awaited = aliased(Job)
    overdue = session.execute(
        select(Job, awaited)
        .join(awaited, Job.awaits_id == awaited.id)
        .where(
            Job.state == IS_QUEUED,
            Job.awaits_id.is_not(None),
            awaited.state.not_in((JobState.QUEUED, JobState.RUNNING)),
            (Job.kind != JobKind.PUSH) | (awaited.state != JobState.SUCCEEDED),
        )
        .order_by(Job.seq)
    ).all()
    messages: list[JobMessage] = []
    for job, ended in overdue:
        lock_version(session, job.version_id)
        messages += _resolve(session, job, ended)
    return messages


def _resolve(session: Session, job: Job, ended: Job) -> list[JobMessage]:
    if ended.state == JobState.SUCCEEDED and job.kind == JobKind.PUSH:
        return [JobMessage(job.id, job.kind)]
    if ended.state == JobState.SUCCEEDED:
        state, error_class, message = JobState.SUCCEEDED, None, None
    else:
        reason = (ended.error_message or "no reason was given").rstrip(".")
        state = JobState.FAILED
        error_class = ended.error_class or ErrorClass.INVALID
        message = f"The {WAITED_FOR[ended.kind]} that it waited for was not done ({ended.state}): {reason}."
    settled = session.scalar(
        update(Job)
        .where(Job.id == job.id, Job.state == JobState.QUEUED)
        .values(state=state, finished_at=now_ms(), credentials=None, error_class=error_class, error_message=message)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if settled is None:
        return []
    if settled.kind == JobKind.PUBLISH:
        finish_publish(session, settled)
    elif settled.kind == JobKind.PUSH:
        session.execute(
            update(ImagePush)
            .where(ImagePush.id == settled.push_id, ImagePush.generation == settled.generation)
            .values(state=PushState.FAILED, message=message, finished_at=now_ms())
        )
        record_event(session, str(settled.push_id), "ended")
    return resolve_dependents(session, settled)


def finish_publish(session: Session, job: Job) -> None:
    """Make the version callable, or give its reserved number back."""
    if job.state == JobState.SUCCEEDED:
        values: dict[str, Any] = {"publish_state": PublishState.PUBLISHED, "published_at": now_ms()}
    else:
        values = {
            "publish_state": PublishState.NO,
            "semantic_version": None,
            "build_id": None,
            "publish_job_id": None,
            "callability": "private",
        }
    session.execute(
        update(Version)
        .where(Version.publish_job_id == job.id, Version.publish_state == PublishState.PENDING)
        .values(values)
        .execution_options(synchronize_session="fetch")
    )
