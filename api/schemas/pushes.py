"""Request and response bodies of pushes, and of pulls: where instances pull an image from."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from sqlalchemy import Row
from typing_extensions import override

from api.schemas.base import ABSENT_TEXT, NotSupportedYet, RequestModel, ResponseModel, Text, Timestamp, Uuid
from api.schemas.registries import ONE_FORM_OF_CREDENTIALS, CredentialsRequest, RegistryId
from shared.db.models import ImagePush, Instance, InstanceState, PushState, Version
from shared.pulls.resolution import Resolution
from shared.pushes.drift import missing_message


class PushOptionsRequest(RequestModel):
    """Options of pushes that are not supported yet."""

    atomic: NotSupportedYet = None
    evidence: NotSupportedYet = None
    quorum: NotSupportedYet = None
    scan: NotSupportedYet = None


class PushCredentialsRequest(CredentialsRequest, PushOptionsRequest):
    """One registry to push to, with credentials for this push or the registry's own."""

    registry_id: RegistryId


class RepushRequest(PushOptionsRequest):
    """The body of a re-push as in the documentation of the platform, or only its inner object."""

    registry_push_credentials: PushCredentialsRequest

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        wrapped = {"type": "object", "properties": schema.pop("properties"), "required": schema.pop("required")}
        return {**schema, "minProperties": 1, "anyOf": [wrapped, wrapped["properties"]["registry_push_credentials"]]}

    @model_validator(mode="before")
    @classmethod
    def _wrap_inner_object(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("registry_push_credentials"):
            return {"registry_push_credentials": data}
        return data


CREDENTIALS_NEED_A_REGISTRY: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"registry_username": ABSENT_TEXT, "registry_password": ABSENT_TEXT}},
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


class AdoptRequest(RequestModel):
    """Which published versions to push to the registry; without either, all."""

    owner: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    algorithm: Annotated[Text, StringConstraints(min_length=1, max_length=130)] | None = Field(
        None, description="OWNER/NAME or the id."
    )


class ProgressResponse(ResponseModel):
    """The progress of a push."""

    done_bytes: int
    total_bytes: int
    layers_done: int
    layers_total: int


class LastSuccessResponse(ResponseModel):
    """The last successful push. It stays until a later push succeeds."""

    digest: str
    image: str
    finished_at: Timestamp


class PushResponse(ResponseModel):
    """The status of the latest push of a version to a registry."""

    registry_id: Uuid
    status: PushState
    status_message: str
    updated_at: Timestamp
    registry_url: str
    image: str
    digest: str | None
    attempt: int
    progress: ProgressResponse
    started_at: Timestamp | None
    finished_at: Timestamp | None
    last_success: LastSuccessResponse | None
    missing: bool
    """Whether the last good image is missing from the registry."""
    last_seen_at: Timestamp | None
    """When the registry was last seen to have it."""


class ListedPushResponse(PushResponse):
    """A push in a list, with its algorithm and version."""

    algorithm: str
    algorithm_id: Uuid
    git_hash: str


class SkippedResponse(ResponseModel):
    """A push that was not enqueued, and why."""

    algorithm: str
    git_hash: str
    registry_id: str
    reason: str


class BulkResponse(ResponseModel):
    """The result of a request for many pushes."""

    enqueued: int
    skipped: list[SkippedResponse]
    more: bool
    """Whether there are more pushes than one request enqueues: send another request."""


def present_progress(push: ImagePush | Row[Any]) -> ProgressResponse:
    return ProgressResponse(
        done_bytes=push.done_bytes,
        total_bytes=push.total_bytes,
        layers_done=push.layers_done,
        layers_total=push.layers_total,
    )


def present_push(push: ImagePush | Row[Any], waits: str | None = None) -> PushResponse:
    """Return the status of a push; `waits` is the reason why its registry does not take it at present."""
    return PushResponse(
        registry_id=push.registry_id,
        status=push.state,
        status_message=" ".join(filter(None, [push.message, waits, missing_message(push)])),
        updated_at=push.updated_at,
        registry_url=push.registry_url,
        image=push.image,
        digest=push.digest,
        attempt=push.attempt,
        progress=present_progress(push),
        started_at=push.started_at,
        finished_at=push.finished_at,
        last_success=LastSuccessResponse(
            digest=push.last_success_digest,
            image=push.last_success_image,
            finished_at=push.last_success_at,
        )
        if push.last_success_digest and push.last_success_image
        else None,
        missing=push.missing_at is not None,
        last_seen_at=push.seen_at,
    )


class PinRequest(RequestModel):
    """The only registry to pull from."""

    registry_id: RegistryId


class CandidateResponse(ResponseModel):
    """A registry that the image could be pulled from, and whether it was chosen."""

    registry_id: Uuid | None
    """Null: the image store of the platform."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


class InstanceResponse(ResponseModel):
    """The newest instance of the version."""

    state: InstanceState
    message: str
    since: Timestamp
    image: str


class PullResponse(ResponseModel):
    """Where instances pull the image of a version from, and why. `image` is null if they cannot pull it."""

    image: str | None
    digest: str | None
    registry_id: Uuid | None
    reason: str
    considered: list[CandidateResponse]
    pinned_registry_id: Uuid | None
    serving: InstanceResponse | None


def present_pull(resolution: Resolution, version: Version, instance: Instance | None) -> PullResponse:
    return PullResponse(
        image=resolution.image,
        digest=resolution.digest,
        registry_id=resolution.registry_id,
        reason=resolution.reason,
        considered=[CandidateResponse(**vars(candidate)) for candidate in resolution.considered],
        pinned_registry_id=version.pinned_registry_id,
        serving=None if instance is None else _present_instance(instance),
    )


def _present_instance(instance: Instance) -> InstanceResponse:
    since = {
        InstanceState.PENDING: instance.created_at,
        InstanceState.READY: instance.ready_at,
        InstanceState.DRAINING: instance.draining_at,
        InstanceState.STOPPED: instance.ended_at,
        InstanceState.FAILED: instance.ended_at,
    }[InstanceState(instance.state)]
    return InstanceResponse(
        state=instance.state,
        message=instance.message,
        since=since or instance.created_at,
        image=instance.image,
    )
