"""Request and response bodies of pulls: where instances pull an image from."""

from api.schemas.base import RequestModel, ResponseModel, Timestamp, Uuid
from api.schemas.pushes import RegistryId
from shared.db.clock import rfc3339
from shared.db.models import Instance, InstanceState, Version
from shared.pulls.resolution import Resolution


class PinRequest(RequestModel):
    """The only registry to pull from."""

    registry_id: RegistryId


class CandidateResponse(ResponseModel):
    """A registry that the image could be pulled from, and whether it was chosen."""

    registry_id: Uuid | None
    """Null: the image store of the platform."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


class InstanceResponse(ResponseModel):
    """The newest instance of the version."""

    state: InstanceState
    message: str
    since: Timestamp
    image: str


class PullResponse(ResponseModel):
    """Where instances pull the image of a version from, and why. `image` is null if they cannot pull it."""

    image: str | None
    digest: str | None
    registry_id: Uuid | None
    reason: str
    considered: list[CandidateResponse]
    pinned_registry_id: Uuid | None
    serving: InstanceResponse | None


def present_pull(resolution: Resolution, version: Version, instance: Instance | None) -> PullResponse:
    return PullResponse(
        image=resolution.image,
        digest=resolution.digest,
        registry_id=resolution.registry_id,
        reason=resolution.reason,
        considered=[CandidateResponse(**vars(candidate)) for candidate in resolution.considered],
        pinned_registry_id=version.pinned_registry_id,
        serving=None if instance is None else _present_instance(instance),
    )


def _present_instance(instance: Instance) -> InstanceResponse:
    times: dict[InstanceState, int | None] = {
        InstanceState.PENDING: instance.created_at,
        InstanceState.READY: instance.ready_at,
        InstanceState.DRAINING: instance.draining_at,
        InstanceState.STOPPED: instance.ended_at,
        InstanceState.FAILED: instance.ended_at,
    }
    since = times[InstanceState(instance.state)] or instance.created_at
    return InstanceResponse(state=instance.state, message=instance.message, since=rfc3339(since), image=instance.image)
