"""Where executions pull an image from, as callers read and pin it."""

from collections.abc import Mapping

from api.schemas.base import Body, Moment, Shown, Uuid
from api.schemas.pushes import RegistryId
from shared.clock import rfc3339
from shared.models import Serving, ServingState, Version
from shared.pulls.resolution import Resolution


class PinBody(Body):
    """The one registry to pull from."""

    registry_id: RegistryId


class ConsideredShown(Shown):
    """One place that the image could be pulled from, and what became of it."""

    registry_id: Uuid | None
    """Null: the platform's own store."""
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


class ServingShown(Shown):
    """What ran last for the version's callers, or is about to."""

    state: ServingState
    message: str
    since: Moment
    image: str


class PullShown(Shown):
    """Where executions pull a version's image from, and why; without an `image` from nowhere."""

    image: str | None
    digest: str | None
    registry_id: Uuid | None
    reason: str
    considered: list[ConsideredShown]
    pinned_registry_id: Uuid | None
    serving: ServingShown | None


def show_pull(resolution: Resolution, version: Version, serving: Serving | None) -> PullShown:
    """A resolution as callers read it, with the newest serving of the version."""
    return PullShown(
        image=resolution.image,
        digest=resolution.digest,
        registry_id=resolution.registry_id,
        reason=resolution.reason,
        considered=[ConsideredShown(**vars(one)) for one in resolution.considered],
        pinned_registry_id=version.pinned_registry_id,
        serving=None if serving is None else _show_serving(serving),
    )


def _show_serving(serving: Serving) -> ServingShown:
    began: Mapping[ServingState, int | None] = {
        ServingState.READY: serving.ready_at,
        ServingState.DRAINING: serving.draining_at,
        ServingState.STOPPED: serving.ended_at,
        ServingState.FAILED: serving.ended_at,
    }
    since = began.get(ServingState(serving.state)) or serving.created_at
    return ServingShown(state=serving.state, message=serving.message, since=rfc3339(since) or "", image=serving.image)
