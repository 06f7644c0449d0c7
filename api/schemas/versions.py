"""Compiles, publishes, builds and versions as callers write and read them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, RootModel, StringConstraints

from api.schemas.algorithms import AlgorithmShown, DetailsChange, DetailsShown, SourceShown, show_details, show_source
from api.schemas.base import Body, LongText, Moment, Shown, Uuid
from api.schemas.patterns import HASH
from api.schemas.pushes import PushBody, PushShown
from shared.clock import rfc3339
from shared.models import Algorithm, Build, BuildStatus, Version
from shared.orders.publish import VersionType

CommitHash = Annotated[
    str,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    StringConstraints(pattern=r"^[0-9a-f]{7,64}\z"),
    Field(json_schema_extra={"pattern": HASH}),
]


MOST_PUSHES = 20


def _one_or_several(value: object) -> object:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


Pushes = Annotated[
    list[PushBody],
    Field(max_length=MOST_PUSHES),
    BeforeValidator(
        _one_or_several,
        json_schema_input_type=PushBody | Annotated[list[PushBody], Field(max_length=MOST_PUSHES)] | None,
    ),
]
"""One object, as the platform has it, or a list of them."""


class CompileBody(Body):
    """What to compile, and where to push it."""

    commitSha: CommitHash | None = None  # noqa: N815 - the platform's name
    registry_push_credentials: Pushes = []


class PublishSettingsBody(Body):
    """The settings that a publish takes."""

    algorithm_callability: Literal["public", "private"] = "private"


class PublishVersionBody(Body):
    """What a publish says of its version."""

    version_type: Annotated[VersionType, Field(strict=False)] = VersionType.REVISION
    release_notes: LongText | None = None
    sample_input: LongText | None = None
    sample_output: LongText | None = None


class PublishBody(Body):
    """What to publish, and where to push it."""

    settings: PublishSettingsBody | None = None
    version_info: PublishVersionBody | None = None
    details: DetailsChange | None = None
    commitSha: CommitHash | None = None  # noqa: N815 - the platform's name
    registry_push_credentials: Pushes = []


class VersionInfoShown(Shown):
    """What is known of a version."""

    left_out = frozenset({"semantic_version"})

    semantic_version: str | None = None
    git_hash: str
    version_uuid: Uuid
    release_notes: str | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    insights_enabled: bool = False


class BuildVersionShown(Shown):
    """The version that a build was published as."""

    semantic_version: str


class BuildShown(Shown):
    """A build. Its status is one of the platform's three."""

    left_out = frozenset({"finished_at", "version_info", "registry_status"})

    build_id: Uuid
    commit_sha: str
    status: Literal["in-progress", "succeeded", "failed"]
    started_at: Moment
    finished_at: Moment | None = None
    resource_type: Literal["algorithm_build"] = "algorithm_build"
    version_info: BuildVersionShown | None = None
    registry_status: PushShown | None = None


class CompilationShown(Shown):
    """How the compilation ended."""

    successful: bool
    output: str


class VersionShown(Shown):
    """A version with its build, as the platform calls it."""

    left_out = frozenset({"compilation", "build"})

    id: Uuid
    name: str
    details: DetailsShown
    settings: dict[str, Any]
    source: SourceShown
    version_info: VersionInfoShown
    build: BuildShown | None = None
    compilation: CompilationShown | None = None
    self_link: str
    resource_type: Literal["algorithm"] = "algorithm"


class LatestShown(RootModel[VersionShown | AlgorithmShown]):
    """The latest version of an algorithm, or the algorithm alone where there is none."""


class BuildLogsShown(Shown):
    """A build's log."""

    logs: str


STATUS_SHOWN: dict[BuildStatus, Literal["in-progress", "succeeded", "failed"]] = {
    BuildStatus.QUEUED: "in-progress",
    BuildStatus.RUNNING: "in-progress",
    BuildStatus.SUCCEEDED: "succeeded",
    BuildStatus.FAILED: "failed",
    BuildStatus.CANCELLED: "failed",
}


def show_build(build: Build, version: Version, push: PushShown | None) -> BuildShown:
    """A build as callers read it."""
    published = version.published and version.build_id == build.id and version.semantic_version
    return BuildShown(
        build_id=build.id,
        commit_sha=build.commit_sha,
        status=STATUS_SHOWN[build.status],
        started_at=rfc3339(build.started_at or build.created_at) or "",
        finished_at=rfc3339(build.finished_at),
        version_info=BuildVersionShown(semantic_version=published) if published else None,
        registry_status=push,
    )


def show_version(
    algorithm: Algorithm, version: Version, build: Build | None, push: PushShown | None, public_url: str
) -> VersionShown:
    """A version as callers read it, with the build that stands for it."""
    known = build is not None and BuildStatus(build.status).ended
    return VersionShown(
        id=algorithm.id,
        name=algorithm.name,
        details=show_details(algorithm),
        settings={**algorithm.settings, "algorithm_callability": version.callability},
        source=show_source(algorithm, public_url),
        version_info=VersionInfoShown(
            semantic_version=version.semantic_version,
            git_hash=version.git_hash,
            version_uuid=version.id,
            release_notes=version.release_notes,
            sample_input=version.sample_input,
            sample_output=version.sample_output,
        ),
        build=show_build(build, version, push) if build else None,
        compilation=CompilationShown(successful=build.status == BuildStatus.SUCCEEDED, output=build.message or "")
        if build is not None and known
        else None,
        self_link=f"{public_url}/v1/algorithms/{algorithm.path}/versions/{version.git_hash}",
    )
