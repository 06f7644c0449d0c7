"""Ordering that nodes, or what runs, pull afresh."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.commands.push import Enqueued
from shared.db.models import Job, JobKind, Refresh, RefreshKind
from shared.db.models.jobs import LIVE_STATES
from shared.errors import ConflictError
from shared.jobs.dispatch import JobMessage
from shared.refreshes import NODES_LOCK, RefreshOptions


def enqueue_refresh(
    session: Session, options: RefreshOptions, *, owner: str, request_id: str | None = None
) -> Enqueued:
    """Have nodes or runners pull afresh.

    Raises:
        ConflictError: another refresh of nodes has not ended.
        sqlalchemy.exc.IntegrityError: one was ordered at the same moment; ordered again, this one is refused.
    """
    job_id = str(uuid.uuid4())
    place = f"refresh:{job_id}"
    if options.what == RefreshKind.NODES and not options.dry_run:
        place = NODES_LOCK
        _refuse_a_second(session)
    job = Job(
        id=job_id,
        kind=JobKind.REFRESH,
        owner=owner,
        algorithm_id="",
        version_id="",
        git_hash="",
        lock_name=place,
        request_id=request_id,
    )
    session.add_all([job, Refresh(job_id=job_id, what=options.what, options=options.as_document())])
    session.flush()
    return Enqueued(job, [JobMessage(job.id, job.kind)])


def _refuse_a_second(session: Session) -> None:
    live = session.scalar(
        select(Job.id).where(Job.kind == JobKind.REFRESH, Job.lock_name == NODES_LOCK, Job.state.in_(LIVE_STATES))
    )
    if live is not None:
        raise ConflictError(
            f"The nodes are being refreshed by the job {live}: follow it (GET /v1/jobs/{live}), or cancel it first."
        )
