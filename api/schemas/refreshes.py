"""Request and response bodies of refreshes of nodes and of runners."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import ABSENT, RequestModel, ResponseModel, Text, Timestamp, Uuid
from api.schemas.patterns import HASH, WORKER_ID
from api.schemas.registries import RegistryId
from shared.db.models import Refresh, RefreshKind, StepState
from shared.refreshes import RefreshOptions, RestartKind, read_steps

NodeName = Annotated[str, StringConstraints(pattern=WORKER_ID)]
OF_RUNNERS = ("algorithm", "git_hash", "registry_id")
OF_NODES = ("nodes", "restart")


def _without(*names: str) -> JsonSchemaValue:
    return dict.fromkeys(names, ABSENT)


EITHER_NODES_OR_RUNNERS: JsonSchemaValue = {
    "anyOf": [
        {"properties": {"what": {"anyOf": [{"const": "nodes"}, ABSENT]}, **_without(*OF_RUNNERS)}},
        {
            "properties": {
                "what": {"const": "runners"},
                "algorithm": {"type": "string"},
                "git_hash": {"type": "string"},
                **_without(*OF_NODES),
            },
            "required": ["what", "algorithm", "git_hash"],
        },
        {
            "properties": {
                "what": {"const": "runners"},
                **_without("algorithm", "git_hash", *OF_NODES),
            },
            "required": ["what"],
        },
    ]
}


class RefreshRequest(RequestModel):
    """What to refresh. `nodes` and `restart` are for nodes; the algorithm and the registry are for runners."""

    model_config = ConfigDict(json_schema_extra=EITHER_NODES_OR_RUNNERS)

    what: Literal["nodes", "runners"] = "nodes"
    nodes: Annotated[list[NodeName], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Names of nodes; all by default."
    )
    restart: Literal["command", "webhook", "none"] | None = Field(
        None, description="How a node is restarted once it is drained; by default as in the settings."
    )
    algorithm: Annotated[Text, StringConstraints(min_length=1, max_length=130)] | None = Field(
        None, description="OWNER/NAME or the id; requires `git_hash`."
    )
    git_hash: Annotated[str, StringConstraints(pattern=HASH)] | None = Field(
        None, description="The commit of the version, at least 7 characters."
    )
    registry_id: RegistryId | None = Field(None, description="Only runners whose image was pulled from this registry.")
    dry_run: bool = False


class StepResponse(ResponseModel):
    """The refresh of one node or runner."""

    omitted_if_null = frozenset({"started_at", "finished_at", "evicted", "stay", "waits_for", "refused_for"})

    name: str
    """The name of a node, or OWNER/NAME@HASH of a runner."""
    state: StepState
    step: str
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    evicted: list[str] | None = None
    stay: list[str] | None = None
    waits_for: list[str] | None = None
    refused_for: list[str] | None = None


class RefreshResponse(ResponseModel):
    """The progress of a refresh. `steps` is empty until a worker has planned it."""

    omitted_if_null = frozenset({"restart"})

    what: RefreshKind
    dry_run: bool
    restart: RestartKind | None = None
    steps: list[StepResponse]


class RestartedRunnerResponse(ResponseModel):
    """An instance that a refresh would restart."""

    algorithm: str
    git_hash: str
    image: str
    registry_id: Uuid | None
    """Null: the image store of the platform."""


class RefreshEnqueuedResponse(ResponseModel):
    """The enqueued refresh. A dry run of runners has no job; `runners` is what it would restart."""

    omitted_if_null = frozenset({"job_id", "runners"})

    what: RefreshKind
    dry_run: bool
    job_id: Uuid | None = None
    runners: list[RestartedRunnerResponse] | None = None


def present_refresh(refresh: Refresh) -> RefreshResponse:
    options = RefreshOptions.read(refresh.options)
    return RefreshResponse(
        what=options.what,
        dry_run=options.dry_run,
        restart=options.restart,
        steps=[
            StepResponse(
                name=step.name,
                state=step.state,
                step=step.step,
                started_at=step.started_at,
                finished_at=step.finished_at,
                **(step.plan or {}),
            )
            for step in read_steps(refresh.progress)
        ],
    )
