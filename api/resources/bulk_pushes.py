"""Many pushes at once (administrators): retry what failed, and push what is published to a registry."""

from collections.abc import Callable, Sequence

from flask import Response, g
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import admin_only, audit, require_known_owner
from api.enqueue import add_job_headers, record_idempotency_key, repeated_job_id, wait_for
from api.request_parsing import parse_credentials
from api.routing import json_response, v1_blueprint
from api.schemas.base import Query
from api.schemas.pushes import AdoptRequest, BulkResponse, RetryRequest, SkippedResponse
from shared.algorithms import find_algorithm
from shared.commands.adopt import Adoption, adopt_versions
from shared.commands.bulk import BulkResult, Record
from shared.commands.repush import Retry, retry_pushes
from shared.db.engine import database
from shared.db.models import Job, PushState
from shared.errors import InvalidInputError
from shared.registries.access import address_of
from shared.registries.rows import find_registry

blueprint = v1_blueprint("bulk_pushes")
blueprint.tag = "Pushes"


class BulkQuery(Query):
    """How to do a request for many pushes."""

    dry_run: bool = False
    """Answer with what would be enqueued and skipped, and enqueue nothing."""


@blueprint.post("/pushes/retry")
@blueprint.input(BulkQuery, location="query", arg_name="query")
@blueprint.input(RetryRequest, arg_name="body")
@blueprint.output(BulkResponse)
@admin_only
def retry(query: BulkQuery, body: RetryRequest) -> Response:
    """Push again what failed (or was cancelled, or stalled), the oldest first."""
    filters = body.model_dump(include={"registry_id", "status", "algorithm"}, exclude_none=True)

    def write_audit(session: Session, jobs: Sequence[Job]) -> None:
        audit(session, "pushes.retry", jobs[0].id, number=len(jobs), **filters)

    def command(record: Record) -> BulkResult:
        with database().reading() as session:
            selected = _selected(session, body, dry_run=query.dry_run)
        return retry_pushes(database(), selected, request_id=g.request_id, record=record)

    return _bulk_response(command, write_audit)


@blueprint.post("/registries/<registry_id>/adopt")
@blueprint.input(BulkQuery, location="query", arg_name="query")
@blueprint.input(AdoptRequest, arg_name="body")
@blueprint.output(BulkResponse)
@admin_only
def adopt(registry_id: str, query: BulkQuery, body: AdoptRequest) -> Response:
    """Push the published versions of an algorithm, of an owner, or all to a registry that has not got them."""

    def write_audit(session: Session, jobs: Sequence[Job]) -> None:
        audit(session, "registry.adopt", registry_id, owner=body.owner, number=len(jobs), algorithm=body.algorithm)

    def command(record: Record) -> BulkResult:
        with database().reading() as session:
            find_registry(session, registry_id)
            if body.owner is not None:
                require_known_owner(session, body.owner)
            algorithm_id = find_algorithm(session, body.algorithm).id if body.algorithm else None
        adoption = Adoption(registry_id, body.owner, algorithm_id, dry_run=query.dry_run)
        return adopt_versions(database(), adoption, request_id=g.request_id, record=record)

    return _bulk_response(command, write_audit)


def _bulk_response(command: Callable[[Record], BulkResult], write_audit: Record) -> Response:
    """Run a command, unless this request repeats an earlier one, and return the response about its jobs."""
    result = BulkResult() if repeated_job_id() else _run_once(command, write_audit)
    dispatch.send(result.messages)
    # Nothing is enqueued if this repeats a request, which may have been sent at the same time.
    parent_id = None if result.jobs else repeated_job_id()
    if parent_id is not None:
        with database().reading() as session:
            children = session.scalars(select(Job.id).where(Job.parent_id == parent_id)).all()
        result = BulkResult(1 + len(children), [parent_id, *children])
    if result.jobs:
        wait_for(result.jobs[0])
    response = json_response(
        BulkResponse(
            enqueued=result.enqueued,
            skipped=[SkippedResponse(**vars(each)) for each in result.skipped],
            more=result.last is not None,
        )
    )
    return add_job_headers(response, result.jobs[0]) if result.jobs else response


def _run_once(command: Callable[[Record], BulkResult], write_audit: Record) -> BulkResult:
    def record(session: Session, jobs: Sequence[Job]) -> None:
        if jobs[0].parent_id is None:  # the first of the call, and the parent of the others
            record_idempotency_key(session, jobs[0])
        write_audit(session, jobs)

    try:
        return command(record)
    except IntegrityError:  # another request has used the key since; it is committed by now
        if repeated_job_id() is None:
            raise
        return BulkResult()


def _selected(session: Session, body: RetryRequest, *, dry_run: bool) -> Retry:
    registry = find_registry(session, body.registry_id) if body.registry_id else None
    credentials = parse_credentials(body, address_of(registry) if registry else None)
    if credentials is not None and registry is None:
        raise InvalidInputError("Credentials are for one registry: name it as registry_id, or leave them out.")
    return Retry(
        status=PushState(body.status),
        registry_id=registry.id if registry else None,
        algorithm_id=find_algorithm(session, body.algorithm).id if body.algorithm else None,
        credentials=credentials,
        dry_run=dry_run,
    )
