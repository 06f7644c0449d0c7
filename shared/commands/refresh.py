"""Refresh nodes or instances, so that they pull their images again."""

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
    """Enqueue a refresh.

    Raises:
        ConflictError: another refresh of nodes has not ended.
        sqlalchemy.exc.IntegrityError: another one was enqueued at the same moment; a second call raises ConflictError.
    """
    job_id = str(uuid.uuid4())
    lock_name = f"refresh:{job_id}"
    if options.what == RefreshKind.NODES and not options.dry_run:
        lock_name = NODES_LOCK
        live = session.scalar(
            select(Job.id).where(Job.kind == JobKind.REFRESH, Job.lock_name == NODES_LOCK, Job.state.in_(LIVE_STATES))
        )
        if live is not None:
            raise ConflictError(
                f"The nodes are being refreshed by the job {live}: follow it (GET /v1/jobs/{live}), or cancel it first."
            )
    job = Job(
        id=job_id,
        kind=JobKind.REFRESH,
        owner=owner,
        algorithm_id="",
        version_id="",
        git_hash="",
        lock_name=lock_name,
        request_id=request_id,
    )
    session.add_all([job, Refresh(job_id=job_id, what=options.what, options=options.as_document())])
    session.flush()
    return Enqueued(job, [JobMessage(job.id, job.kind)])
