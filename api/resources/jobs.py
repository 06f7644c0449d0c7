"""`/v1/jobs`: list, read, cancel and follow jobs."""

from functools import partial
from typing import Any

from flask import Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import audit, caller, readable_algorithm
from api.owner_slots import wait_slots
from api.pagination import Page, PageQuery, filters, page_response
from api.presenters import present_job, present_jobs
from api.routing import json_response, no_content, v1_blueprint
from api.schemas.base import Text
from api.schemas.jobs import JobResponse, JobSummaryResponse
from api.sse import StreamPosition, next_events, stream_events
from shared.algorithms import readable_algorithms
from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Algorithm, Job, JobKind, JobState
from shared.errors import NotFoundError, UnavailableError
from shared.settings import settings

blueprint = v1_blueprint("jobs")

BUSY_RETRY_AFTER_SECONDS = 5
EVENT_RESPONSES: dict[int, Any] = {
    200: {
        "description": "The events.",
        "content": {
            "text/event-stream": {
                # The schema of one event: before OpenAPI 3.2 the schema of a stream describes each of its events.
                "schema": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "event": {"type": "string", "enum": ["state", "log", "progress"]},
                        "data": {"type": "string", "description": "JSON."},
                    },
                    "required": ["id", "event", "data"],
                }
            }
        },
    },
    204: {"description": "All events were sent; there will be no more."},
}


class JobsQuery(PageQuery):
    """The jobs to list."""

    kind: JobKind | None = None
    state: JobState | None = None
    algorithm: Text | None = None
    registry: Text | None = None


@blueprint.get("/jobs")
@blueprint.input(JobsQuery, location="query", arg_name="query")
@blueprint.output(Page[JobSummaryResponse])
def list_jobs(query: JobsQuery) -> Response:
    """List the jobs that the caller may read, newest first."""
    with database().reading() as session:
        rows = select(Job).where(*filters((Job.kind, query.kind), (Job.state, query.state)))
        if query.registry is not None:
            # Only pushes have a registry. Without this, the database would scan them all for another kind.
            is_empty = query.kind not in (None, JobKind.PUSH)
            rows = rows.where(Job.seq < 0 if is_empty else Job.registry_id == query.registry)
        if query.algorithm is not None:
            rows = rows.where(Job.algorithm_id == readable_algorithm(session, query.algorithm).id)
        readable = readable_algorithms(caller())
        if readable is not None:
            # The owner follows from the algorithm; the index on it finds few jobs in a long history.
            rows = rows.where(Job.owner == caller().owner, Job.algorithm_id.in_(readable))
        return page_response(session, rows, Job.seq, query, partial(present_jobs, session))


@blueprint.get("/jobs/<job_id>")
@blueprint.output(JobResponse)
def get_job(job_id: str) -> Response:
    """Return a job with its children."""
    with database().reading() as session:
        job, _algorithm = _find_job(session, job_id)
        return json_response(present_job(session, job, of_all_algorithms=caller().admin))


@blueprint.delete("/jobs/<job_id>")
@blueprint.output({}, status_code=204)
def cancel(job_id: str) -> Response:
    """Cancel a job that has not ended, and its dependents."""
    with database().writing() as session:
        job, algorithm = _find_job(session, job_id)
        if algorithm is not None:
            caller().require_manager(algorithm)
        messages = cancel_job(session, job)
        audit(
            session,
            "job.cancel",
            job.id,
            owner=job.owner,
            kind=job.kind,
            algorithm=algorithm.path if algorithm is not None else None,
        )
    dispatch.send(messages)
    return no_content()


@blueprint.get("/jobs/<job_id>/events")
@blueprint.doc(responses=EVENT_RESPONSES)
def follow_job(job_id: str) -> Response:
    """Stream the events of a job (server-sent events) until it and its children have ended.

    `state`: the job as in `GET /v1/jobs/ID`, without progress. `log`: `{offset, text}`, new text in the log of a
    compile. `progress`: `{pushes: [{job_id, registry_id, done_bytes, …}]}`. A request with `Last-Event-ID` gets the
    later events; 204 if there are none and there will be no more.
    """
    with database().reading() as session:
        _find_job(session, job_id)
    position = StreamPosition.parse(request.headers.get("Last-Event-ID", ""))
    events, ended = next_events(job_id, position, of_all_algorithms=caller().admin)
    if ended and not events:
        return no_content()
    owner = caller().owner
    if not wait_slots().acquire(owner):
        raise UnavailableError(
            f"Too many requests of {owner} or others wait for jobs; retry later, or use GET /v1/jobs/ID.",
            retry_after=BUSY_RETRY_AFTER_SECONDS,
        )
    response = Response(
        stream_events(
            job_id,
            events,
            ended,
            position,
            caller=caller(),
            keepalive_seconds=settings().keepalive_seconds,
        ),
        mimetype="text/event-stream",
    )
    response.call_on_close(partial(wait_slots().release, owner))
    response.headers["X-Accel-Buffering"] = "no"  # proxies must not buffer events
    return response


def _find_job(session: Session, job_id: str) -> tuple[Job, Algorithm | None]:
    """Return a job, and its algorithm if it has one.

    Raises:
        NotFoundError: no such job, or none that the caller may read: one of another algorithm, or of none.
    """
    row = session.execute(
        select(Job, Algorithm).outerjoin(Algorithm, Algorithm.id == Job.algorithm_id).where(Job.id == job_id)
    ).one_or_none()
    job, algorithm = (None, None) if row is None else row._tuple()
    if job is None or not (caller().admin if algorithm is None else caller().may_read(algorithm)):
        raise NotFoundError(f"No job has the id {job_id!r}.")
    return job, algorithm
