"""Request and response bodies of compiles, publishes, builds and versions."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, RootModel, StringConstraints

from api.schemas.algorithms import (
    AlgorithmResponse,
    DetailsResponse,
    DetailsUpdate,
    SettingsRequest,
    present_details,
)
from api.schemas.base import LongText, RequestModel, ResponseModel, Text, Timestamp, Uuid
from api.schemas.patterns import HASH
from api.schemas.pushes import PushCredentialsRequest, PushOptionsRequest, PushResponse
from api.schemas.sources import ScmsCredentialsRequest, SourceRequest, SourceResponse, present_source
from shared.commands.publish import VersionType
from shared.db.models import Algorithm, Build, BuildStatus, Version
from shared.db.models.algorithms import LoadCheckState

CommitHash = Annotated[
    str,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    StringConstraints(pattern=r"^[0-9a-f]{7,64}\z"),
    Field(json_schema_extra={"pattern": HASH}),
]


MAX_PUSHES = 20


def _to_list(value: object) -> object:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


Pushes = Annotated[
    list[PushCredentialsRequest] | None,
    Field(
        max_length=MAX_PUSHES,
        description="One registry or a list of them; null: none. Left out, or an empty object: the default registry.",
    ),
    BeforeValidator(
        _to_list,
        json_schema_input_type=PushCredentialsRequest
        | Annotated[list[PushCredentialsRequest], Field(max_length=MAX_PUSHES)]
        | None,
    ),
]
"""One object, as on the platform, or a list of them. None: it was left out, so the default registry applies."""


class CompileRequest(PushOptionsRequest):
    """The commit to compile, and the registries to push its image to."""

    further_properties = frozenset({"sshPrivateKey"})

    commitSha: CommitHash | None = None  # noqa: N815 - the platform's name
    registry_push_credentials: Pushes = None
    sshPrivateKey: LongText | None = Field(  # noqa: N815 - the platform's name
        None, description="For a repository elsewhere it is refused; a hosted one needs none."
    )


class PublishVersionRequest(RequestModel):
    """The version of a publish."""

    further_properties = frozenset({"semantic_version"})

    version_type: Annotated[VersionType, Field(strict=False)] | None = None
    """None: minor."""
    git_hash: CommitHash | None = Field(None, description="The same as `commitSha`.")
    semantic_version: Annotated[Text, StringConstraints(max_length=64)] | None = Field(
        None, description="What the number must become; a request that would give another one is refused."
    )
    release_notes: LongText | None = None
    sample_input: LongText | None = None
    sample_output: LongText | None = None


class PublishRequest(PushOptionsRequest):
    """The commit to publish, and the registries to push its image to."""

    further_properties = frozenset({"source", "scmsCredentials"})

    settings: SettingsRequest | None = None
    version_info: PublishVersionRequest | None = None
    details: DetailsUpdate | None = None
    source: SourceRequest | None = Field(None, description="What the algorithm has already: a publish changes nothing.")
    scmsCredentials: ScmsCredentialsRequest | None = None  # noqa: N815 - the platform's name
    commitSha: CommitHash | None = None  # noqa: N815 - the platform's name
    registry_push_credentials: Pushes = None


class VersionInfoResponse(ResponseModel):
    """The names and texts of a version."""

    omitted_if_null = frozenset({"semantic_version"})

    semantic_version: str | None = None
    git_hash: str
    version_uuid: Uuid
    release_notes: str | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    insights_enabled: bool = False


class BuildVersionResponse(ResponseModel):
    """The version that a build was published as."""

    semantic_version: str


class LoadCheckResponse(ResponseModel):
    """Whether the algorithm could be imported in the built image, without network."""

    omitted_if_null = frozenset({"traceback"})

    state: LoadCheckState
    traceback: str | None = Field(None, description="Why it failed. The build's log says why a check was skipped.")


class BuildResponse(ResponseModel):
    """A build. Its status is one of the three statuses of the platform."""

    omitted_if_null = frozenset({"finished_at", "version_info", "registry_status", "load_check"})

    build_id: Uuid
    commit_sha: str
    status: Literal["in-progress", "succeeded", "failed"]
    started_at: Timestamp
    finished_at: Timestamp | None = None
    resource_type: Literal["algorithm_build"] = "algorithm_build"
    version_info: BuildVersionResponse | None = None
    registry_status: PushResponse | None = None
    load_check: LoadCheckResponse | None = Field(None, description="Absent until known, soon after the build.")


class CompilationResponse(ResponseModel):
    """The result of a compilation."""

    successful: bool
    output: str


class VersionResponse(ResponseModel):
    """A version with its build. The platform calls it an algorithm."""

    omitted_if_null = frozenset({"compilation", "build"})

    id: Uuid
    name: str
    details: DetailsResponse
    settings: dict[str, Any]
    source: SourceResponse
    version_info: VersionInfoResponse
    build: BuildResponse | None = None
    compilation: CompilationResponse | None = None
    self_link: str
    resource_type: Literal["algorithm"] = "algorithm"


class LatestResponse(RootModel[VersionResponse | AlgorithmResponse]):
    """The latest version of an algorithm, or the algorithm alone if it has none."""


class BuildLogsResponse(ResponseModel):
    """The log of a build."""

    logs: str


PLATFORM_STATUS: dict[BuildStatus, Literal["in-progress", "succeeded", "failed"]] = {
    BuildStatus.QUEUED: "in-progress",
    BuildStatus.RUNNING: "in-progress",
    BuildStatus.SUCCEEDED: "succeeded",
    BuildStatus.FAILED: "failed",
    BuildStatus.CANCELLED: "failed",
}


def present_build(build: Build, version: Version, push: PushResponse | None) -> BuildResponse:
    published = version.published and version.build_id == build.id and version.semantic_version
    return BuildResponse(
        build_id=build.id,
        commit_sha=build.commit_sha,
        status=PLATFORM_STATUS[build.status],
        started_at=build.started_at or build.created_at,
        finished_at=build.finished_at,
        version_info=BuildVersionResponse(semantic_version=published) if published else None,
        registry_status=push,
        load_check=(
            LoadCheckResponse(state=build.load_check, traceback=build.load_check_traceback)
            if build.load_check is not None
            else None
        ),
    )


def present_version(
    algorithm: Algorithm, version: Version, build: Build | None, push: PushResponse | None, public_url: str
) -> VersionResponse:
    return VersionResponse(
        id=algorithm.id,
        name=algorithm.name,
        details=present_details(algorithm),
        settings={**algorithm.settings, "algorithm_callability": version.callability},
        source=present_source(algorithm, public_url),
        version_info=VersionInfoResponse(
            semantic_version=version.semantic_version,
            git_hash=version.git_hash,
            version_uuid=version.id,
            release_notes=version.release_notes,
            sample_input=version.sample_input,
            sample_output=version.sample_output,
        ),
        build=present_build(build, version, push) if build else None,
        compilation=CompilationResponse(successful=build.status == BuildStatus.SUCCEEDED, output=build.message or "")
        if build is not None and BuildStatus(build.status).ended
        else None,
        self_link=f"{public_url}/v1/algorithms/{algorithm.path}/versions/{version.git_hash}",
    )
