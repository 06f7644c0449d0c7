"""Wanting an image to run: the serving of what the resolution says, and the job that starts it."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.pulls.resolution import Resolution

FAILURE_STANDS_MS = 3_000
"""For so long a start that failed answers for others that would fail the same way."""
SERVING_STATES = (InstanceState.PENDING, InstanceState.READY)


@dataclass(frozen=True)
class DesiredState:
    """What a version's callers are to be served by at this moment."""

    owner: str
    algorithm_id: str
    version_id: str
    git_hash: str
    registry_id: str | None
    image: str
    digest: str
    network: str

    @classmethod
    def of(cls, algorithm: Algorithm, version: Version, resolution: Resolution) -> "DesiredState | None":
        """What a resolution asks for; None where it found no image."""
        if resolution.image is None or resolution.digest is None:
            return None
        return cls(
            owner=algorithm.owner,
            algorithm_id=algorithm.id,
            version_id=version.id,
            git_hash=version.git_hash,
            registry_id=resolution.registry_id,
            image=resolution.image,
            digest=resolution.digest,
            network=network_of(algorithm),
        )


def network_of(algorithm: Algorithm) -> str:
    """What network an algorithm asks for: `full`, unless its settings say `isolated`."""
    return "isolated" if algorithm.settings.get("network_access") == "isolated" else "full"


def current_instance(session: Session, wanted: DesiredState) -> Instance | None:
    """The serving of what is wanted, be it ready or about to be; or one that could not be started just now."""
    return session.scalar(_CURRENT, {"version": wanted.version_id, "image": wanted.image, "network": wanted.network})


_CURRENT = (
    select(Instance)
    .where(
        Instance.version_id == bindparam("version"),
        Instance.image == bindparam("image"),
        Instance.network == bindparam("network"),
        Instance.state.in_(SERVING_STATES)
        | ((Instance.state == InstanceState.FAILED) & (Instance.ended_at > now_ms() - FAILURE_STANDS_MS)),
    )
    .order_by(Instance.seq.desc())
    .limit(1)
)
