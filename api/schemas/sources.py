"""Request and response bodies about where the source of an algorithm is kept."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import ABSENT, EMPTY_TEXT, LongText, RequestModel, ResponseModel, Text, none_if_empty
from shared.db.models import Algorithm
from shared.scms import find_scm
from shared.settings import settings
from shared.settings.scms import HOSTED_ID, Scm

Provider = Literal["internal", "github", "gitlab", "bitbucket", "bitbucket-cloud"]
UNKNOWN_ID = "elsewhere"
"""The id of what keeps a repository that was named by its URL."""
PROVIDER_OF_UNKNOWN: Provider = "github"
"""For a server that its name says nothing about: the one provider that every published client knows."""


def _id_of(value: object) -> object:
    # Responses have the whole object, which clients send back.
    return none_if_empty(value.get("id") if isinstance(value, dict) else value)


SourceText = Annotated[
    Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None, BeforeValidator(none_if_empty)
]
ScmId = Annotated[Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None, BeforeValidator(_id_of)]


class SourceCredentialsRequest(RequestModel):
    """Credentials of a private repository elsewhere."""

    username: Annotated[Text, StringConstraints(max_length=256)]
    password: Annotated[Text, StringConstraints(min_length=1, max_length=8192)]


class NoCredentialsRequest(RequestModel):
    """No credentials, as clients write it that always send both fields."""

    username: Literal[""]
    password: Literal[""]


NO_CREDENTIALS: JsonSchemaValue = {
    "anyOf": [
        *ABSENT["anyOf"],
        {"type": "object", "properties": {"username": EMPTY_TEXT, "password": EMPTY_TEXT}},
    ]
}


def _none_if_both_empty(value: object) -> object:
    is_empty = isinstance(value, dict) and value.get("username") == "" and value.get("password") == ""
    return None if is_empty else value


class ScmsCredentialsRequest(RequestModel):
    """Credentials of a repository in a configured system: user name and password, or an access token."""

    username: SourceText = None
    password: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=8192)] | None, BeforeValidator(none_if_empty)
    ] = None
    secret_token: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=8192)] | None, BeforeValidator(none_if_empty)
    ] = None


class SourceRequest(RequestModel):
    """Where the source is: at a URL, in a configured system, or, without either, in a repository of Longshore's own."""

    further_properties = frozenset(
        {"scm", "repository_owner", "repository_name", "existing_repository_name", "initial_commit_message"}
    )

    repository_https_url: Annotated[Text, StringConstraints(max_length=512)] | None = None
    credentials: Annotated[
        SourceCredentialsRequest | None,
        BeforeValidator(
            _none_if_both_empty, json_schema_input_type=SourceCredentialsRequest | NoCredentialsRequest | None
        ),
    ] = None
    scm: ScmId = Field(None, description="`internal`, or the id of a system in `GET /v1/scms`.")
    repository_owner: SourceText = Field(None, description="The owner of the repository in that system.")
    repository_name: SourceText = Field(None, description="The name of the repository in that system.")
    existing_repository_name: SourceText = Field(None, description="The same as `repository_name`.")
    initial_commit_message: LongText | None = Field(
        None, description="For information: Longshore makes no commits elsewhere, and its own have their own message."
    )


class UrlsResponse(ResponseModel):
    """The addresses of a source code management system."""

    web: str
    api: str
    ssh: str


class ScmResponse(ResponseModel):
    """A source code management system; the models of the generated client require the fields that are always there."""

    omitted_if_null = frozenset({"urls", "scm"})

    id: str
    name: str
    provider: Provider
    default: bool
    enabled: bool
    urls: UrlsResponse | None = None
    scm: dict[str, Any] | None = None


class ScmListResponse(ResponseModel):
    """All source code management systems."""

    results: list[ScmResponse]


class SourceResponse(ResponseModel):
    """The repository, without credentials."""

    scm: ScmResponse
    repository_https_url: str
    repository_name: str
    repository_owner: str


HOSTED_SCM = ScmResponse(id=HOSTED_ID, name="Longshore", provider="internal", default=True, enabled=True)


def present_scm(scm: Scm) -> ScmResponse:
    return ScmResponse(
        id=scm.id,
        name=scm.name,
        provider=scm.provider,
        default=False,
        enabled=scm.enabled,
        urls=UrlsResponse(**scm.urls.model_dump()),
    )


def present_scms() -> ScmListResponse:
    return ScmListResponse(results=[HOSTED_SCM, *(present_scm(scm) for scm in settings().scms)])


def present_source(algorithm: Algorithm, public_url: str) -> SourceResponse:
    if algorithm.repository_url is None:
        return SourceResponse(
            scm=HOSTED_SCM,
            repository_https_url=f"{public_url}/git/{algorithm.path}.git",
            repository_name=algorithm.name,
            repository_owner=algorithm.owner,
        )
    scm = find_scm(algorithm.scm_id)
    *owner, name = urlsplit(algorithm.repository_url).path.strip("/").split("/")
    if scm is not None and scm.provider == "bitbucket":
        owner = owner[-1:]
    return SourceResponse(
        scm=_elsewhere(algorithm.repository_url) if scm is None else present_scm(scm),
        repository_https_url=algorithm.repository_url,
        repository_name=name.removesuffix(".git"),
        repository_owner="/".join(owner),
    )


def _elsewhere(url: str) -> ScmResponse:
    host = urlsplit(url).hostname or ""
    by_name: tuple[tuple[str, Provider], ...] = (
        ("github", "github"),
        ("gitlab", "gitlab"),
        ("bitbucket.org", "bitbucket-cloud"),
        ("bitbucket", "bitbucket"),
    )
    provider = next((provider for part, provider in by_name if part in host), PROVIDER_OF_UNKNOWN)
    return ScmResponse(id=UNKNOWN_ID, name=host, provider=provider, default=False, enabled=True)
