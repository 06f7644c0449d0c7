"""Request and response bodies of algorithms."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import (
    ABSENT,
    EMPTY_TEXT,
    WHOLE_NUMBER,
    LongText,
    RequestModel,
    ResponseModel,
    ShortText,
    Text,
    Uuid,
)
from api.schemas.patterns import ALGORITHM, ROUTED_NAMES
from shared.db.models import Algorithm

Name = Annotated[
    Text,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}\z", max_length=63),
    Field(json_schema_extra={"pattern": ALGORITHM, "not": {"enum": list(ROUTED_NAMES)}}),
]
EnvironmentName = Annotated[Text, StringConstraints(max_length=100)]


class DetailsRequest(RequestModel):
    """The description of an algorithm."""

    label: Annotated[Text, StringConstraints(min_length=1, max_length=256)]
    summary: LongText | None = None
    tagline: ShortText | None = None


class DetailsUpdate(RequestModel):
    """Changes to the description of an algorithm."""

    label: Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None = None
    summary: LongText | None = None
    tagline: ShortText | None = None


class SettingsRequest(RequestModel):
    """How an algorithm is built, and who may call and read it."""

    language: EnvironmentName | None = None
    algorithm_environment: EnvironmentName | None = None
    package_set: EnvironmentName | None = None
    environment: Literal["cpu", "gpu"] | None = None
    source_visibility: Literal["open", "closed"] | None = None
    algorithm_callability: Literal["public", "private"] | None = None
    license: Literal["apl", "apache2", "gpl3", "mit"] | None = None
    network_access: Literal["full", "isolated"] | None = None
    pipeline_enabled: bool | None = None
    royalty_microcredits: Annotated[int, Field(ge=0, le=2**53), WHOLE_NUMBER] | None = None


class SourceCredentialsRequest(RequestModel):
    """Credentials of a private repository elsewhere."""

    username: Annotated[Text, StringConstraints(max_length=256)]
    password: Annotated[Text, StringConstraints(min_length=1, max_length=8192)]


class NoCredentialsRequest(RequestModel):
    """No credentials, as clients write it that always send both fields."""

    username: Literal[""]
    password: Literal[""]


def _none_if_empty(value: object) -> object:
    is_empty = isinstance(value, dict) and value.get("username") == "" and value.get("password") == ""
    return None if is_empty else value


class SourceRequest(RequestModel):
    """A repository elsewhere. Without a URL, Longshore hosts the repository."""

    repository_https_url: Annotated[Text, StringConstraints(max_length=512)] | None = None
    credentials: Annotated[
        SourceCredentialsRequest | None,
        BeforeValidator(_none_if_empty, json_schema_input_type=SourceCredentialsRequest | NoCredentialsRequest | None),
    ] = None


NO_CREDENTIALS: JsonSchemaValue = {
    "anyOf": [
        *ABSENT["anyOf"],
        {"type": "object", "properties": {"username": EMPTY_TEXT, "password": EMPTY_TEXT}},
    ]
}


class SampleRequest(RequestModel):
    """The part of `version_info` that a create or update uses."""

    sample_input: LongText | None = None


class AlgorithmRequest(RequestModel):
    """An algorithm to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"source": {"properties": {"credentials": NO_CREDENTIALS}}}},
                {
                    "properties": {
                        "source": {
                            "properties": {"repository_https_url": {"type": "string", "minLength": 1}},
                            "required": ["repository_https_url"],
                        }
                    }
                },
            ]
        }
    )

    name: Name
    details: DetailsRequest
    settings: SettingsRequest = SettingsRequest()
    source: SourceRequest | None = None
    version_info: SampleRequest | None = None


class AlgorithmUpdate(RequestModel):
    """Changes to an algorithm."""

    details: DetailsUpdate | None = None
    settings: SettingsRequest | None = None
    source: SourceRequest | None = None
    version_info: SampleRequest | None = None


class DetailsResponse(ResponseModel):
    """The description of an algorithm."""

    label: str
    summary: str | None = None
    tagline: str | None = None


class ScmResponse(ResponseModel):
    """Where the source is kept; the models of the generated client require all these fields."""

    id: Uuid
    name: str
    provider: Literal["internal", "other"]
    default: bool
    enabled: bool


class SourceResponse(ResponseModel):
    """The repository, without credentials."""

    scm: ScmResponse
    repository_https_url: str
    repository_name: str
    repository_owner: str


class AlgorithmResponse(ResponseModel):
    """An algorithm, without a version."""

    omitted_if_null = frozenset({"version_info"})

    id: Uuid
    name: str
    details: DetailsResponse
    settings: dict[str, Any]
    source: SourceResponse
    self_link: str
    resource_type: Literal["algorithm"] = "algorithm"
    version_info: dict[str, Any] | None = None


class OwnedAlgorithmResponse(ResponseModel):
    """An algorithm in the list of its owner."""

    id: Uuid
    algoname: str
    username: str


HOSTED_SCM = ScmResponse(
    id="4fd18ee5-0000-4000-8000-000000000001", name="Longshore", provider="internal", default=True, enabled=True
)
OTHER_SCM = ScmResponse(
    id="4fd18ee5-0000-4000-8000-000000000002", name="Elsewhere", provider="other", default=False, enabled=True
)


def present_details(algorithm: Algorithm) -> DetailsResponse:
    details = algorithm.details
    return DetailsResponse(
        label=details.get("label") or algorithm.name, summary=details.get("summary"), tagline=details.get("tagline")
    )


def present_source(algorithm: Algorithm, public_url: str) -> SourceResponse:
    return SourceResponse(
        scm=HOSTED_SCM if algorithm.hosted else OTHER_SCM,
        repository_https_url=algorithm.repository_url or f"{public_url}/git/{algorithm.path}.git",
        repository_name=algorithm.name,
        repository_owner=algorithm.owner,
    )


def present_algorithm(algorithm: Algorithm, public_url: str) -> AlgorithmResponse:
    return AlgorithmResponse(
        id=algorithm.id,
        name=algorithm.name,
        details=present_details(algorithm),
        settings=algorithm.settings,
        source=present_source(algorithm, public_url),
        self_link=f"{public_url}/v1/algorithms/{algorithm.path}",
        version_info={"insights_enabled": False, "sample_input": algorithm.sample_input},
    )
