"""Pushes and their status as callers write and read them."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from sqlalchemy import Row

from api.schemas.base import ABSENT, Moment, RequestModel, ResponseModel, Storable, Text, Uuid
from api.schemas.registries import ONE_FORM_OF_CREDENTIALS, CredentialsRequest
from shared.db.clock import rfc3339
from shared.db.models import ImagePush, PushState
from shared.pushes.drift import missing_message

RegistryId = Annotated[
    Storable, StringConstraints(min_length=1, max_length=64), WithJsonSchema({"type": "string", "format": "uuid"})
]
"""How callers name a registry: whether there is one of this id is the database's to say."""


class PushCredentialsRequest(CredentialsRequest):
    """One registry to push to, with credentials for this push or the registry's own."""

    registry_id: RegistryId


class RepushRequest(RequestModel):
    """The body of a re-push as the page prints it, or what is inside of it bare."""

    registry_push_credentials: PushCredentialsRequest

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(core_schema))
        wrapped = {"type": "object", "properties": described.pop("properties"), "required": described.pop("required")}
        return {**described, "minProperties": 1, "anyOf": [wrapped, wrapped["properties"]["registry_push_credentials"]]}

    @model_validator(mode="before")
    @classmethod
    def _wrap_bare(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("registry_push_credentials"):
            return {"registry_push_credentials": given}
        return given


CREDENTIALS_NEED_A_REGISTRY: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"registry_username": ABSENT, "registry_password": ABSENT}},
        {"properties": {"registry_id": {"type": "string"}}, "required": ["registry_id"]},
    ]
}


class RetryRequest(CredentialsRequest):
    """Which pushes to enqueue again, and with which credentials if not the registries' own."""

    model_config = ConfigDict(json_schema_extra={"allOf": [ONE_FORM_OF_CREDENTIALS, CREDENTIALS_NEED_A_REGISTRY]})

    registry_id: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    status: Literal["failed", "cancelled", "stalled"] = "failed"
    algorithm: Annotated[Text, StringConstraints(min_length=1, max_length=130)] | None = Field(
        None, description="OWNER/NAME or the id."
    )


class ProgressResponse(ResponseModel):
    """How far a push is."""

    done_bytes: int
    total_bytes: int
    layers_done: int
    layers_total: int


class LastSuccessResponse(ResponseModel):
    """The last good push, which later pushes do not take away until one succeeds."""

    digest: str
    image: str
    finished_at: Moment


class PushResponse(ResponseModel):
    """The status of the latest push of a version to a registry."""

    registry_id: Uuid
    status: PushState
    status_message: str
    updated_at: Moment
    registry_url: str
    image: str
    digest: str | None
    attempt: int
    progress: ProgressResponse
    started_at: Moment | None
    finished_at: Moment | None
    last_success: LastSuccessResponse | None
    missing: bool
    """The registry does not have the last good image any more."""
    last_seen_at: Moment | None
    """When the registry was last known to have it."""


class ListedPushResponse(PushResponse):
    """A push as a dashboard lists it, with whose it is."""

    algorithm: str
    algorithm_id: Uuid
    git_hash: str


class SkippedResponse(ResponseModel):
    """A push that was not enqueued again, and why."""

    algorithm: str
    git_hash: str
    registry_id: str
    reason: str


class RetriedResponse(ResponseModel):
    """The result of a retry."""

    enqueued: int
    skipped: list[SkippedResponse]
    more: bool
    """Whether there are more than one call takes: send it again."""


def show_progress(push: ImagePush | Row[Any]) -> ProgressResponse:
    """How far a push is."""
    return ProgressResponse(
        done_bytes=push.done_bytes,
        total_bytes=push.total_bytes,
        layers_done=push.layers_done,
        layers_total=push.layers_total,
    )


def show_push(push: ImagePush | Row[Any], waits: str | None = None) -> PushResponse:
    """The status of a push as callers read it; `waits` says what keeps its registry from taking it at the moment."""
    last = None
    if push.last_success_digest and push.last_success_image:
        last = LastSuccessResponse(
            digest=push.last_success_digest,
            image=push.last_success_image,
            finished_at=rfc3339(push.last_success_at) or "",
        )
    return PushResponse(
        registry_id=push.registry_id,
        status=push.state,
        status_message=" ".join(filter(None, [push.message, waits, missing_message(push)])),
        updated_at=rfc3339(push.updated_at) or "",
        registry_url=push.registry_url,
        image=push.image,
        digest=push.digest,
        attempt=push.attempt,
        progress=show_progress(push),
        started_at=rfc3339(push.started_at),
        finished_at=rfc3339(push.finished_at),
        last_success=last,
        missing=push.missing_at is not None,
        last_seen_at=rfc3339(push.seen_at),
    )
