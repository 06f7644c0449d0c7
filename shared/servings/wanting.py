"""Wanting an image to run: the serving of what the resolution says, and the job that starts it."""

import uuid
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.jobs.locks import lock_version
from shared.jobs.nudges import Nudge
from shared.models import Algorithm, Job, JobKind, Serving, ServingState, Version
from shared.pulls.resolution import Resolution

FAILURE_STANDS_MS = 3_000
"""For so long a start that failed answers for others that would fail the same way."""
SERVING_STATES = (ServingState.WANTED, ServingState.READY)


@dataclass(frozen=True)
class Wanted:
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
    def of(cls, algorithm: Algorithm, version: Version, resolution: Resolution) -> "Wanted | None":
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


def present_serving(session: Session, wanted: Wanted) -> Serving | None:
    """The serving of what is wanted, be it ready or about to be; or one that could not be started just now."""
    return session.scalar(
        _PRESENT, {"the_version": wanted.version_id, "the_image": wanted.image, "the_network": wanted.network}
    )


_PRESENT = (
    select(Serving)
    .where(
        Serving.version_id == bindparam("the_version"),
        Serving.image == bindparam("the_image"),
        Serving.network == bindparam("the_network"),
        Serving.state.in_(SERVING_STATES)
        | ((Serving.state == ServingState.FAILED) & (Serving.ended_at > now_ms() - FAILURE_STANDS_MS)),
    )
    .order_by(Serving.seq.desc())
    .limit(1)
)


def want_serving(session: Session, wanted: Wanted, *, request_id: str | None = None) -> tuple[Serving, list[Nudge]]:
    """The serving of what is wanted, made with the job that starts it where there is none; and whom to nudge."""
    lock_version(session, wanted.version_id)  # so that two calls at once make one
    present = present_serving(session, wanted)
    if present is not None:
        return present, []
    serving = Serving(
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
        id=serving.job_id,
        kind=JobKind.SERVE,
        owner=wanted.owner,
        algorithm_id=wanted.algorithm_id,
        version_id=wanted.version_id,
        git_hash=wanted.git_hash,
        serving_id=serving.id,
        lock_key=f"serve:{serving.id}",
        request_id=request_id,
    )
    session.add_all([serving, job])
    session.flush()
    return serving, [Nudge(job.id, job.kind)]
