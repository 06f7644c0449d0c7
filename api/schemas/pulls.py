"""Where an execution pulls from, as callers read and pin it."""

from typing import Annotated

from pydantic import StringConstraints, WithJsonSchema

from api.schemas.base import Body, Moment, Shown, Storable, Uuid
from shared.clock import rfc3339
from shared.models import Serving, ServingState, Version
from shared.pulls.resolution import Considered, Resolution


class PinBody(Body):
    """The one registry that a version is to be pulled from."""

    registry_id: Annotated[
        Storable, StringConstraints(min_length=1, max_length=64), WithJsonSchema({"type": "string", "format": "uuid"})
    ]


class ConsideredShown(Shown):
    """One place that the image could come from, and why it does or does not."""

    registry_id: Uuid | None
    registry_url: str | None
    digest: str | None
    chosen: bool
    reason: str


class ServingShown(Shown):
    """What was run of the version last."""

    state: ServingState
    message: str
    image: str
    since: Moment


class PullShown(Shown):
    """Where executions pull the version's image from at this moment; without an image, why from nowhere."""

    image: str | None
    digest: str | None
    registry_id: Uuid | None
    reason: str
    pinned_registry_id: Uuid | None
    considered: list[ConsideredShown]
    serving: ServingShown | None


def show_pull(version: Version, resolution: Resolution, serving: Serving | None) -> PullShown:
    """A resolution as callers read it."""
    return PullShown(
        image=resolution.image,
        digest=resolution.digest,
        registry_id=resolution.registry_id,
        reason=resolution.reason,
        pinned_registry_id=version.pinned_registry_id,
        considered=[_considered(one) for one in resolution.considered],
        serving=None if serving is None else _serving(serving),
    )


def _considered(one: Considered) -> ConsideredShown:
    return ConsideredShown(**vars(one))


def _serving(serving: Serving) -> ServingShown:
    return ServingShown(
        state=serving.state,
        message=serving.message,
        image=serving.image,
        since=rfc3339(serving.updated_at) or "",
    )
