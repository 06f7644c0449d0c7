"""`/v1/pushes/retry`: push again everything that failed, was cancelled or stalled (admin)."""

from collections.abc import Sequence

from flask import Response, g
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import audit, caller
from api.credentials import parse_credentials
from api.enqueue import add_job_headers, record_idempotency_key, repeated_job_id, wait_for
from api.responses import json_response
from api.routing import v1_blueprint
from api.schemas.pushes import RetriedResponse, RetryRequest, SkippedResponse
from shared.algorithms import find_algorithm
from shared.commands.repush import Retried, Retry, retry_pushes
from shared.db.engine import database
from shared.db.models import Job, PushState
from shared.errors import InvalidInputError
from shared.registries.client import address_of
from shared.registries.rows import find_registry

blueprint = v1_blueprint("pushes_again")


@blueprint.post("/pushes/retry")
@blueprint.input(RetryRequest, arg_name="body")
@blueprint.output(RetriedResponse)
def retry(body: RetryRequest) -> Response:
    """Push again what failed (or was cancelled, or stalled), the oldest first."""
    caller().require_admin()
    retried = Retried() if repeated_job_id() else _retry(body)
    dispatch.send(retried.messages)
    # Nothing is enqueued if this repeats a request, which may have been sent at the same time.
    parent_id = None if retried.jobs else repeated_job_id()
    if parent_id is not None:
        with database().reading() as session:
            children = session.scalars(select(Job.id).where(Job.parent_id == parent_id)).all()
        retried = Retried(jobs=[parent_id, *children])
    if retried.jobs:
        wait_for(retried.jobs[0])
    skipped = [SkippedResponse(**vars(each)) for each in retried.skipped]
    response = json_response(
        RetriedResponse(enqueued=len(retried.jobs), skipped=skipped, more=retried.last is not None)
    )
    return add_job_headers(response, retried.jobs[0]) if retried.jobs else response


def _retry(body: RetryRequest) -> Retried:
    filters = body.model_dump(include={"registry_id", "status", "algorithm"}, exclude_none=True)

    def record(session: Session, jobs: Sequence[Job]) -> None:
        if jobs[0].parent_id is None:  # the first of the call, and the parent of the others
            record_idempotency_key(session, jobs[0])
        audit(session, "pushes.retry", jobs[0].id, number=len(jobs), **filters)

    with database().reading() as session:
        selected = _selected(session, body)
    try:
        return retry_pushes(database(), selected, request_id=g.request_id, record=record)
    except IntegrityError:  # another request has used the key since; it is committed by now
        if repeated_job_id() is None:
            raise
        return Retried()


def _selected(session: Session, body: RetryRequest) -> Retry:
    registry = find_registry(session, body.registry_id) if body.registry_id else None
    credentials = parse_credentials(body, address_of(registry) if registry else None)
    if credentials is not None and registry is None:
        raise InvalidInputError("Credentials are for one registry: name it as registry_id, or leave them out.")
    return Retry(
        status=PushState(body.status),
        registry_id=registry.id if registry else None,
        algorithm_id=find_algorithm(session, body.algorithm).id if body.algorithm else None,
        credentials=credentials,
    )
