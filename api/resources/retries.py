"""`/v1/pushes/retry`: pushing again what was not done, all at once (admin)."""

from typing import Annotated, Literal

from flask import Response, g
from pydantic import ConfigDict, Field, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import audit, caller
from api.credentials import given_credentials
from api.enqueue import name_job, remember_job, repeated_job, wait_for
from api.responses import json_response
from api.routing import v1_blueprint
from api.schemas.base import ABSENT, ResponseModel, Text
from api.schemas.registries import ONE_FORM_OF_CREDENTIALS, CredentialsRequest
from shared.algorithms import find_algorithm
from shared.commands.repush import Retry, Skipped, retry_pushes
from shared.db.engine import database
from shared.db.models import Job, PushState
from shared.errors import InvalidInputError
from shared.registries.rows import address_of, find_registry

blueprint = v1_blueprint("pushes_again")


CREDENTIALS_NEED_A_REGISTRY: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"registry_username": ABSENT, "registry_password": ABSENT}},
        {"properties": {"registry_id": {"type": "string"}}, "required": ["registry_id"]},
    ]
}


class RetryRequest(CredentialsRequest):
    """Which pushes to order again, and with which credentials if not the registries' own."""

    model_config = ConfigDict(json_schema_extra={"allOf": [ONE_FORM_OF_CREDENTIALS, CREDENTIALS_NEED_A_REGISTRY]})

    registry_id: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    status: Literal["failed", "cancelled", "stalled"] = "failed"
    algorithm: Annotated[Text, StringConstraints(min_length=1, max_length=130)] | None = Field(
        None, description="OWNER/NAME or the id."
    )


class SkippedResponse(ResponseModel):
    """A push that was not ordered again, and why."""

    algorithm: str
    git_hash: str
    registry_id: str
    reason: str


class RetriedResponse(ResponseModel):
    """What was ordered."""

    enqueued: int
    skipped: list[SkippedResponse]
    more: bool
    """Whether there are more than one call takes: send it again."""


@blueprint.post("/pushes/retry")
@blueprint.input(RetryRequest, arg_name="body")
@blueprint.output(RetriedResponse)
def retry(body: RetryRequest) -> Response:
    """Push again what failed (or was cancelled, or stalled), the oldest first."""
    caller().require_admin()
    known = repeated_job()
    if known is not None:
        return _answer(_enqueued_before(known), [], more=False, job_id=known)
    with database().reading() as session:
        wanted = _wanted(session, body)
    retried = retry_pushes(database(), wanted, request_id=g.request_id)
    dispatch.send(retried.messages)
    first = retried.jobs[0] if retried.jobs else None
    if first is not None:
        _write_down(first, len(retried.jobs), body)
        try:
            _remember(first)
        except IntegrityError:  # the same request at the same moment has ordered its part, and is the one remembered
            first = repeated_job()
    return _answer(len(retried.jobs), retried.skipped, more=retried.last is not None, job_id=first)


def _wanted(session: Session, body: RetryRequest) -> Retry:
    registry = find_registry(session, body.registry_id) if body.registry_id else None
    credentials = given_credentials(body, address_of(registry) if registry else None)
    if credentials is not None and registry is None:
        raise InvalidInputError("Credentials are for one registry: name it as registry_id, or leave them out.")
    return Retry(
        status=PushState(body.status),
        registry_id=registry.id if registry else None,
        algorithm_id=find_algorithm(session, body.algorithm).id if body.algorithm else None,
        credentials=credentials,
    )


def _write_down(job_id: str, number: int, body: RetryRequest) -> None:
    wanted = body.model_dump(include={"registry_id", "status", "algorithm"}, exclude_none=True)
    with database().writing() as session:
        audit(session, "pushes.retry", job_id, number=number, **wanted)


def _remember(job_id: str) -> None:
    with database().writing() as session:
        remember_job(session, session.scalars(select(Job).where(Job.id == job_id)).one())


def _enqueued_before(job_id: str) -> int:
    """How many pushes the request ordered that this one repeats."""
    with database().reading() as session:
        parts = session.scalar(select(func.count(Job.seq)).where(Job.parent_id == job_id))
    return 1 + (parts or 0)


def _answer(enqueued: int, skipped: list[Skipped], *, more: bool, job_id: str | None) -> Response:
    if job_id is not None:
        wait_for(job_id)
    shown = RetriedResponse(enqueued=enqueued, skipped=[SkippedResponse(**vars(each)) for each in skipped], more=more)
    response = json_response(shown)
    return response if job_id is None else name_job(response, job_id)
