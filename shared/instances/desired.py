"""Wanting an image to run: the serving of what the resolution says, and the job that starts it."""

import uuid
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Job, JobKind, Version
from shared.jobs.dispatch import JobMessage
from shared.jobs.locks import lock_version
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


def ensure_instance(
    session: Session, wanted: DesiredState, *, request_id: str | None = None
) -> tuple[Instance, list[JobMessage]]:
    """The serving of what is wanted, made with the job that starts it where there is none; and whom to message."""
    lock_version(session, wanted.version_id)  # so that two calls at once make one
    present = current_instance(session, wanted)
    if present is not None:
        return present, []
    instance = Instance(
        id=str(uuid.uuid4()),
        owner=wanted.owner,
        algorithm_id=wanted.algorithm_id,
        version_id=wanted.version_id,
        job_id=str(uuid.uuid4()),
        registry_id=wanted.registry_id,
        image=wanted.image,
        digest=wanted.digest,
        network=wanted.network,
        message="Waits for a worker that starts it.",
    )
    job = Job(
        id=instance.job_id,
        kind=JobKind.SERVE,
        owner=wanted.owner,
        algorithm_id=wanted.algorithm_id,
        version_id=wanted.version_id,
        git_hash=wanted.git_hash,
        instance_id=instance.id,
        lock_name=f"serve:{instance.id}",
        request_id=request_id,
    )
    session.add_all([instance, job])
    session.flush()
    return instance, [JobMessage(job.id, job.kind)]
