"""Registries as callers write and read them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import ABSENT, EMPTY_OBJECT, WHOLE, Moment, RequestModel, ResponseModel, Text, Uuid
from api.schemas.patterns import NO_CONTROL, NO_CONTROL_OR_COLON, PLAIN_HTTP_URL, PROXY_URL, REGISTRY_URL
from shared.db.clock import rfc3339
from shared.db.models import PauseCause, Registry

Username = Annotated[
    Text, StringConstraints(min_length=1, max_length=256), Field(json_schema_extra={"pattern": NO_CONTROL_OR_COLON})
]
Password = Annotated[
    Text, StringConstraints(min_length=1, max_length=8192), Field(json_schema_extra={"pattern": NO_CONTROL})
]


ONE_FORM_OF_CREDENTIALS: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"registry_username": ABSENT, "registry_password": ABSENT}},
        {
            "properties": {
                "registry_username": {"type": "string"},
                "registry_password": {"type": "string"},
                "registry_auth": ABSENT,
            },
            "required": ["registry_username", "registry_password"],
        },
    ]
}
PLAIN_HTTP_WHERE_IT_MAY_BE: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"plain_http": {"anyOf": [{"const": False}, EMPTY_OBJECT]}}},
        {"properties": {"registry_url": {"pattern": PLAIN_HTTP_URL}}},
    ]
}


class CredentialsRequest(RequestModel):
    """Username and password, as any of the clients sends them."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM_OF_CREDENTIALS)
    beyond_schema = frozenset({"registry_auth"})

    registry_username: Username | None = None
    registry_password: Password | None = None
    registry_auth: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        None, description="In place of both: a docker `auths` document, or base64 `user:password`."
    )


class RegistryRequest(CredentialsRequest):
    """A registry to record, or its new state."""

    model_config = ConfigDict(json_schema_extra={"allOf": [ONE_FORM_OF_CREDENTIALS, PLAIN_HTTP_WHERE_IT_MAY_BE]})
    beyond_schema = frozenset({"registry_auth", "ca_certificate"})

    registry_url: Annotated[Text, Field(json_schema_extra={"pattern": REGISTRY_URL, "maxLength": 128})]
    name: Annotated[Text, StringConstraints(max_length=32)] | None = None
    verify_tls: bool = True
    ca_certificate: Annotated[Text, StringConstraints(max_length=65_536)] | None = Field(
        None, description="PEM certificates of the authorities to trust besides the system's."
    )
    plain_http: bool = False
    transport: Literal["direct", "engine"] | None = Field(
        None,
        description="How images get there: by Longshore or by the Docker engine; null: as LONGSHORE_TRANSPORT says.",
    )
    proxy_url: (
        Annotated[Text, StringConstraints(max_length=255), Field(json_schema_extra={"pattern": PROXY_URL})] | None
    ) = Field(None, description="HTTP proxy to it, http://HOST:PORT; null: as LONGSHORE_REGISTRY_PROXY says.")
    max_pushes: Annotated[int, Field(ge=1, le=10_000), WHOLE] | None = Field(
        None, description="How many pushes it takes at once; null: as LONGSHORE_REGISTRY_PUSHES says."
    )


class PauseRequest(RequestModel):
    """Why a registry is paused."""

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None


class PauseResponse(ResponseModel):
    """Since when and why nothing is pushed to a registry."""

    since: Moment
    by: PauseCause
    reason: str
    next_try_at: Moment | None
    """When one push tries it again; null where it waits for an operator."""


class RegistryResponse(ResponseModel):
    """A recorded registry; never a credential."""

    id: Uuid
    name: str | None
    registry_url: str
    created_at: Moment
    updated_at: Moment
    has_credentials: bool
    verify_tls: bool
    ca_certificate: str | None
    plain_http: bool
    transport: Literal["direct", "engine"] | None
    proxy_url: str | None
    max_pushes: int | None
    paused: PauseResponse | None
    throttled_until: Moment | None
    """It asked to slow down (429): nothing is pushed to it before this time."""


class RegistryCheckResponse(ResponseModel):
    """What a registry answered when it was asked."""

    reachable: bool
    authenticated: bool
    can_push: bool
    can_pull: bool
    message: str


def show_registry(registry: Registry) -> RegistryResponse:
    """A registry as callers read it."""
    return RegistryResponse(
        id=registry.id,
        name=registry.name,
        registry_url=registry.registry_url,
        created_at=rfc3339(registry.created_at) or "",
        updated_at=rfc3339(registry.updated_at) or "",
        has_credentials=registry.credentials is not None,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        plain_http=registry.plain_http,
        transport=registry.transport,
        proxy_url=registry.proxy_url,
        max_pushes=registry.max_pushes,
        paused=_show_pause(registry),
        throttled_until=rfc3339(registry.throttled_until),
    )


def _show_pause(registry: Registry) -> PauseResponse | None:
    if registry.paused_at is None or registry.paused_by is None:
        return None
    return PauseResponse(
        since=rfc3339(registry.paused_at) or "",
        by=registry.paused_by,
        reason=registry.pause_reason or "",
        next_try_at=rfc3339(registry.probe_at),
    )
