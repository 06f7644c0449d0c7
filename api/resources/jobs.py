"""`/v1/jobs`: what was enqueued, by owner; and stopping it."""

from collections.abc import Callable
from typing import Any

from flask import Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import audit, caller
from api.enqueue import wait_limit
from api.pagination import PageQuery, page_of, paged
from api.presenters import shown_job, shown_jobs
from api.responses import json_response, no_content
from api.routing import v1_blueprint
from api.schemas.base import ResponseModel, Text
from api.schemas.jobs import JobResponse, PartResponse
from api.sse import SentSoFar, follow, next_events
from shared.algorithms import find_algorithm, readable_algorithms
from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Algorithm, Job, JobKind, JobState
from shared.errors import NotFoundError, UnavailableError
from shared.keys import Caller
from shared.settings import settings

blueprint = v1_blueprint("jobs")

BUSY_SECONDS = 5
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["state", "log", "progress"]},
        "data": {"type": "string", "description": "JSON."},
    },
    "required": ["id", "event", "data"],
}
"""One event: before OpenAPI 3.2 the schema of an event stream describes each of its events."""
EVENT_ANSWERS: dict[int, Any] = {
    200: {
        "description": "The events.",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    204: {"description": "Everything was told, and nothing will come."},
}


class JobsQuery(PageQuery):
    """Which jobs to list."""

    kind: JobKind | None = None
    state: JobState | None = None
    algorithm: Text | None = None
    registry: Text | None = None


class JobsPage(ResponseModel):
    """A page of jobs."""

    marker: str | None
    next_link: str | None
    results: list[PartResponse]


@blueprint.get("/jobs")
@blueprint.input(JobsQuery, location="query", arg_name="query")
@blueprint.output(JobsPage)
def list_jobs(query: JobsQuery) -> Response:
    """The jobs that the caller may read, newest first."""
    with database().reading() as session:
        rows = select(Job)
        if query.kind is not None:
            rows = rows.where(Job.kind == query.kind)
        if query.state is not None:
            rows = rows.where(Job.state == query.state)
        if query.registry is not None:
            # Only pushes have a registry: said here, or the database would look through them all for another kind.
            none = query.kind not in (None, JobKind.PUSH)
            rows = rows.where(Job.seq < 0 if none else Job.registry_id == query.registry)
        if query.algorithm is not None:
            found = find_algorithm(session, query.algorithm)
            caller().require_reader(found)
            rows = rows.where(Job.algorithm_id == found.id)
        readable = readable_algorithms(caller())
        if readable is not None:
            # The owner says no more than the algorithms do, but leads to a few jobs of a long history.
            rows = rows.where(Job.owner == caller().owner, Job.algorithm_id.in_(readable))
        page, marker = page_of(session, rows, Job.seq, query)
        return json_response(paged(shown_jobs(session, [row[0] for row in page]), marker))


@blueprint.get("/jobs/<job_id>")
@blueprint.output(JobResponse)
def get_job(job_id: str) -> Response:
    """One job, with its parts."""
    with database().reading() as session:
        job, _algorithm = _find_job(session, job_id, Caller.require_reader)
        return json_response(shown_job(session, job))


@blueprint.delete("/jobs/<job_id>")
@blueprint.output({}, status_code=204)
def cancel(job_id: str) -> Response:
    """Cancel a job that has not ended, with what waits for it."""
    with database().writing() as session:
        job, algorithm = _find_job(session, job_id, Caller.require_manager)
        freed = cancel_job(session, job)
        about = {"algorithm": algorithm.path} if algorithm is not None else {}
        audit(session, "job.cancel", job.id, owner=job.owner, kind=job.kind, **about)
    dispatch.send(freed)
    return no_content()


@blueprint.get("/jobs/<job_id>/events")
@blueprint.doc(responses=EVENT_ANSWERS)
def follow_job(job_id: str) -> Response:
    """What happens to a job, as server-sent events until it and its parts have ended.

    `state`: the job as `GET /v1/jobs/ID` shows it, without progress. `log`: `{offset, text}`, what a compile's log has
    new. `progress`: `{pushes: [{job_id, registry_id, done_bytes, …}]}`. Whoever comes back with `Last-Event-ID` is
    told what is new since; 204 when that is nothing and nothing will come.
    """
    with database().reading() as session:
        _find_job(session, job_id, Caller.require_reader)
    told = SentSoFar.read(request.headers.get("Last-Event-ID", ""))
    events, ended = next_events(job_id, told)
    if ended and not events:
        return no_content()
    if not wait_limit().acquire(blocking=False):
        raise UnavailableError(
            "Too many requests wait for jobs; come back, or ask GET /v1/jobs/ID.", retry_after=BUSY_SECONDS
        )
    stream = follow(job_id, events, ended, told, keepalive_seconds=settings().keepalive_seconds)
    response = Response(stream, mimetype="text/event-stream")
    response.call_on_close(wait_limit().release)
    response.headers["X-Accel-Buffering"] = "no"  # proxies that would keep events back until there are many
    return response


def _find_job(
    session: Session, job_id: str, require: Callable[[Caller, Algorithm], None]
) -> tuple[Job, Algorithm | None]:
    """A job that the caller may know of, and what it is about.

    Raises:
        NotFoundError: no such job, or one without algorithm and the caller is no administrator.
        PermissionDeniedError: as `require`.
    """
    found = session.execute(
        select(Job, Algorithm).outerjoin(Algorithm, Algorithm.id == Job.algorithm_id).where(Job.id == job_id)
    ).first()
    if found is None or (found[1] is None and not caller().admin):
        raise NotFoundError(f"No job has the id {job_id!r}.")
    job, algorithm = found._tuple()
    if algorithm is not None:
        require(caller(), algorithm)
    return job, algorithm
