"""Request and response bodies of registries."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import (
    ABSENT_TEXT,
    EMPTY_OBJECT,
    WHOLE_NUMBER,
    NotSupportedYet,
    RequestModel,
    ResponseModel,
    Storable,
    Text,
    Timestamp,
    Uuid,
    none_if_empty,
)
from api.schemas.patterns import NO_CONTROL, NO_CONTROL_OR_COLON, PLAIN_HTTP_URL, PROXY_URL, REGISTRY_URL
from shared.db.models import PauseCause, Registry

Username = Annotated[
    Text, StringConstraints(min_length=1, max_length=256), Field(json_schema_extra={"pattern": NO_CONTROL_OR_COLON})
]
Password = Annotated[
    Text, StringConstraints(min_length=1, max_length=8192), Field(json_schema_extra={"pattern": NO_CONTROL})
]
RegistryAuth = Annotated[Text, StringConstraints(min_length=1, max_length=4096)]
OptionalUsername = Annotated[
    Username | None, BeforeValidator(none_if_empty, json_schema_input_type=Username | Literal[""] | None)
]
OptionalPassword = Annotated[
    Password | None, BeforeValidator(none_if_empty, json_schema_input_type=Password | Literal[""] | None)
]
OptionalRegistryAuth = Annotated[
    RegistryAuth | None, BeforeValidator(none_if_empty, json_schema_input_type=RegistryAuth | Literal[""] | None)
]
RegistryId = Annotated[
    Storable, StringConstraints(min_length=1, max_length=64), WithJsonSchema({"type": "string", "format": "uuid"})
]
"""The id of a registry as a request has it; only the database knows whether it exists."""


def _pair_or_none(username: str, password: str, *alternatives: str) -> JsonSchemaValue:
    """Return the schema of a username and password that go together; with both, the alternatives are absent."""
    return {
        "anyOf": [
            {"properties": {username: ABSENT_TEXT, password: ABSENT_TEXT}},
            {
                "properties": {
                    username: {"type": "string", "minLength": 1},
                    password: {"type": "string", "minLength": 1},
                    **dict.fromkeys(alternatives, ABSENT_TEXT),
                },
                "required": [username, password],
            },
        ]
    }


ONE_FORM_OF_CREDENTIALS = _pair_or_none("registry_username", "registry_password", "registry_auth")
ONE_PUSH_ACCOUNT = _pair_or_none("push_username", "push_password")
PLAIN_HTTP_WHERE_ALLOWED: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"plain_http": {"anyOf": [{"const": False}, EMPTY_OBJECT]}}},
        {"properties": {"registry_url": {"pattern": PLAIN_HTTP_URL}}},
    ]
}


class CredentialsRequest(RequestModel):
    """Registry credentials, in any of the forms that clients send. An empty text is the same as null."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM_OF_CREDENTIALS)
    further_properties = frozenset({"registry_auth"})

    registry_username: OptionalUsername = None
    registry_password: OptionalPassword = None
    registry_auth: OptionalRegistryAuth = Field(
        None, description="Instead of both: a docker `auths` document, or base64 of `user:password`."
    )


class PushAccountRequest(RequestModel):
    """Stored credentials for pushes."""

    push_username: OptionalUsername = Field(
        None, description="An account that may push, where the recorded one may only pull. Null removes it."
    )
    push_password: OptionalPassword = None


class DefaultRegistryRequest(PushAccountRequest):
    """The registry for pushes that name none, and credentials for these pushes."""

    model_config = ConfigDict(json_schema_extra=ONE_PUSH_ACCOUNT)

    registry_id: RegistryId


class RegistryRequest(CredentialsRequest, PushAccountRequest):
    """A new registry, or the new state of a registry."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [ONE_FORM_OF_CREDENTIALS, ONE_PUSH_ACCOUNT, PLAIN_HTTP_WHERE_ALLOWED]}
    )
    further_properties = frozenset({"registry_auth", "ca_certificate"})

    registry_url: Annotated[Text, Field(json_schema_extra={"pattern": REGISTRY_URL, "maxLength": 128})]
    name: Annotated[Text, StringConstraints(max_length=32)] | None = None
    verify_tls: bool = True
    ca_certificate: Annotated[Text, StringConstraints(max_length=65_536)] | None = Field(
        None, description="PEM certificates of authorities to trust in addition to the system's."
    )
    plain_http: bool = False
    transport: Literal["direct", "engine"] | None = Field(
        None,
        description="What uploads images: Longshore (`direct`) or the Docker engine; null: as LONGSHORE_TRANSPORT.",
    )
    proxy_url: (
        Annotated[Text, StringConstraints(max_length=255), Field(json_schema_extra={"pattern": PROXY_URL})] | None
    ) = Field(None, description="HTTP proxy, http://HOST:PORT; null: as LONGSHORE_REGISTRY_PROXY.")
    max_pushes: Annotated[int, Field(ge=1, le=10_000), WHOLE_NUMBER] | None = Field(
        None, description="The maximum number of simultaneous pushes; null: as LONGSHORE_REGISTRY_PUSHES."
    )
    default: bool = Field(
        False,
        description="Whether pushes that name no registry go here, unless the algorithm or its owner has another "
        "default. Only one registry is: setting it moves it. Left out in a change, it stays as it is.",
    )
    auth: NotSupportedYet = None
    create_repositories: NotSupportedYet = None
    hold_seconds: NotSupportedYet = None
    scan: NotSupportedYet = None


class PauseRequest(RequestModel):
    """The reason for pausing a registry."""

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None


class PauseResponse(ResponseModel):
    """When and why pushes to a registry were paused."""

    since: Timestamp
    by: PauseCause
    reason: str
    next_try_at: Timestamp | None
    """When one push probes the registry; null if only an operator can resume it."""


class RegistryResponse(ResponseModel):
    """A registry, without its credentials."""

    id: Uuid
    name: str | None
    registry_url: str
    created_at: Timestamp
    updated_at: Timestamp
    has_credentials: bool
    verify_tls: bool
    ca_certificate: str | None
    plain_http: bool
    transport: Literal["direct", "engine"] | None
    proxy_url: str | None
    max_pushes: int | None
    default: bool
    """Whether it is the installation's default."""
    has_push_credentials: bool
    """Whether it has credentials for pushes besides its own."""
    paused: PauseResponse | None
    throttled_until: Timestamp | None
    """No pushes before this time, because the registry asked to slow down (429)."""


class RecordedRegistryResponse(RegistryResponse):
    """A registry that was recorded or changed.

    `can_push` and `message` say what a check of pushing found, where the request set the default or a push account.
    """

    omitted_if_null = frozenset({"can_push", "message", "unpushed_versions"})

    can_push: bool | None = None
    message: str | None = None
    unpushed_versions: int | None = Field(
        None,
        description="Only in the response that recorded the first registry: the number of published versions without "
        "a push, which do not run any more before they are pushed (LONGSHORE_PULL_FALLBACK=auto).",
    )


class RemovedDefaultResponse(ResponseModel):
    """Whose default a deleted registry was: the name of an owner, OWNER/NAME, or null for the installation."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    source: Literal["algorithm", "owner", "installation"] = Field(alias="from")
    name: str | None


class DeletedRegistryResponse(RegistryResponse):
    """A registry that was deleted."""

    removed_defaults: list[RemovedDefaultResponse]
    """The defaults that are gone with it."""


class DefaultRegistryResponse(ResponseModel):
    """The registry that pushes without a named one go to, and whose default it is."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)
    omitted_if_null = frozenset({"can_push", "message"})

    registry_id: Uuid
    source: Literal["algorithm", "owner", "installation"] = Field(alias="from")
    has_push_credentials: bool
    """Whether the default has credentials for these pushes."""
    can_push: bool | None = None
    """Whether the registry allows these pushes; only in the response to setting the default."""
    message: str | None = None


class RegistryCheckResponse(ResponseModel):
    """The result of checking a registry."""

    reachable: bool
    authenticated: bool
    can_push: bool
    can_pull: bool
    message: str


def present_registry(registry: Registry) -> RegistryResponse:
    return RegistryResponse(
        id=registry.id,
        name=registry.name,
        registry_url=registry.registry_url,
        created_at=registry.created_at,
        updated_at=registry.updated_at,
        has_credentials=registry.credentials is not None,
        verify_tls=registry.verify_tls,
        ca_certificate=registry.ca_certificate,
        plain_http=registry.plain_http,
        transport=registry.transport,
        proxy_url=registry.proxy_url,
        max_pushes=registry.max_pushes,
        default=registry.is_default,
        has_push_credentials=registry.push_credentials is not None,
        paused=_present_pause(registry),
        throttled_until=registry.throttled_until,
    )


def _present_pause(registry: Registry) -> PauseResponse | None:
    if registry.paused_at is None or registry.paused_by is None:
        return None
    return PauseResponse(
        since=registry.paused_at,
        by=registry.paused_by,
        reason=registry.pause_reason or "",
        next_try_at=registry.probe_at,
    )
