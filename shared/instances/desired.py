"""The desired state of a version: which image is to run for its callers, and the instance that runs it."""

from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.pulls.resolution import Resolution

FAILURE_VALID_MS = 3_000
"""Milliseconds for which a failed start is the result of later calls too, which would fail in the same way."""
SERVING_STATES = (InstanceState.PENDING, InstanceState.READY)
_CURRENT = (
    select(Instance)
    .where(
        Instance.version_id == bindparam("version"),
        Instance.image == bindparam("image"),
        Instance.network == bindparam("network"),
        Instance.state.in_(SERVING_STATES)
        | ((Instance.state == InstanceState.FAILED) & (Instance.ended_at > now_ms() - FAILURE_VALID_MS)),
    )
    .order_by(Instance.seq.desc())
    .limit(1)
)


@dataclass(frozen=True)
class DesiredState:
    """The image that is to run for the callers of a version."""

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
        """Return the desired state by a resolution, or None where that found no image."""
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
    """Return the network of an algorithm: `full`, unless its settings say `isolated`."""
    return "isolated" if algorithm.settings.get("network_access") == "isolated" else "full"


def current_instance(session: Session, desired: DesiredState) -> Instance | None:
    """Return the instance for a desired state: ready, pending, or failed a moment ago."""
    return session.scalar(_CURRENT, {"version": desired.version_id, "image": desired.image, "network": desired.network})
