"""Where executions pull an image from, as callers read and pin it."""

from collections.abc import Mapping

from api.schemas.base import Moment, RequestModel, ResponseModel, Uuid
from api.schemas.pushes import RegistryId
from shared.db.clock import rfc3339
from shared.db.models import Instance, InstanceState, Version
from shared.pulls.resolution import Resolution


class PinRequest(RequestModel):
    """The one registry to pull from."""

    registry_id: RegistryId


class CandidateResponse(ResponseModel):
    """One place that the image could be pulled from, and what became of it."""

    registry_id: Uuid | None
    """Null: the platform's own store."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


class InstanceResponse(ResponseModel):
    """What ran last for the version's callers, or is about to."""

    state: InstanceState
    message: str
    since: Moment
    image: str


class PullResponse(ResponseModel):
    """Where executions pull a version's image from, and why; without an `image` from nowhere."""

    image: str | None
    digest: str | None
    registry_id: Uuid | None
    reason: str
    considered: list[CandidateResponse]
    pinned_registry_id: Uuid | None
    serving: InstanceResponse | None


def show_pull(resolution: Resolution, version: Version, serving: Instance | None) -> PullResponse:
    """A resolution as callers read it, with the newest serving of the version."""
    return PullResponse(
        image=resolution.image,
        digest=resolution.digest,
        registry_id=resolution.registry_id,
        reason=resolution.reason,
        considered=[CandidateResponse(**vars(one)) for one in resolution.considered],
        pinned_registry_id=version.pinned_registry_id,
        serving=None if serving is None else _show_instance(serving),
    )


def _show_instance(serving: Instance) -> InstanceResponse:
    began: Mapping[InstanceState, int | None] = {
        InstanceState.READY: serving.ready_at,
        InstanceState.DRAINING: serving.draining_at,
        InstanceState.STOPPED: serving.ended_at,
        InstanceState.FAILED: serving.ended_at,
    }
    since = began.get(InstanceState(serving.state)) or serving.created_at
    return InstanceResponse(
        state=serving.state, message=serving.message, since=rfc3339(since) or "", image=serving.image
    )
