"""Response bodies of languages and environments."""

from typing import Literal

from api.schemas.base import ResponseModel, Timestamp, Uuid
from shared.environments import Environment

CREATED_AT = 1_640_995_200_000
"""The creation time of every environment, in milliseconds since 1970: a setting has none of its own."""


class LanguageResponse(ResponseModel):
    """A value for `settings.language`."""

    name: str
    display_name: str


class EnvironmentResponse(ResponseModel):
    """An environment. Its id is accepted wherever its name is."""

    id: Uuid
    environment_specification_id: Uuid
    display_name: str
    description: str
    created_at: Timestamp
    machine_type: Literal["CPU"] = "CPU"
    spec_type: Literal["EXECUTION"] = "EXECUTION"


class EnvironmentListResponse(ResponseModel):
    """The environments of a language."""

    environments: list[EnvironmentResponse]


def present_environment(environment: Environment) -> EnvironmentResponse:
    return EnvironmentResponse(
        id=environment.id,
        environment_specification_id=environment.specification_id,
        display_name=environment.display_name,
        description=f"The environment {environment.name}, made from {environment.base_image}.",
        created_at=CREATED_AT,
    )
