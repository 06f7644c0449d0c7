"""Request and response bodies of algorithms."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.schemas.base import (
    WHOLE_NUMBER,
    LongText,
    RequestModel,
    ResponseModel,
    ShortText,
    Text,
    Uuid,
)
from api.schemas.patterns import ALGORITHM, ROUTED_NAMES
from api.schemas.sources import NO_CREDENTIALS, ScmsCredentialsRequest, SourceRequest, SourceResponse, present_source
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


class SampleRequest(RequestModel):
    """The part of `version_info` that a create or update uses."""

    sample_input: LongText | None = None


class AlgorithmRequest(RequestModel):
    """An algorithm to create."""

    further_properties = frozenset({"scmsCredentials"})
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
    scmsCredentials: ScmsCredentialsRequest | None = None  # noqa: N815 - the platform's name
    version_info: SampleRequest | None = None


class AlgorithmUpdate(RequestModel):
    """Changes to an algorithm."""

    further_properties = frozenset({"scmsCredentials"})

    details: DetailsUpdate | None = None
    settings: SettingsRequest | None = None
    source: SourceRequest | None = None
    scmsCredentials: ScmsCredentialsRequest | None = None  # noqa: N815 - the platform's name
    version_info: SampleRequest | None = None


class DetailsResponse(ResponseModel):
    """The description of an algorithm."""

    label: str
    summary: str | None = None
    tagline: str | None = None


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


def present_details(algorithm: Algorithm) -> DetailsResponse:
    details = algorithm.details
    return DetailsResponse(
        label=details.get("label") or algorithm.name, summary=details.get("summary"), tagline=details.get("tagline")
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
