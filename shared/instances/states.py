"""The desired state of a version, and the states of an instance, from pending to stopped.

Every UPDATE repeats the states that it may start from: of two processes that see the same state, one makes the step.
The steps of a start need no other fence, because they are in the transaction that ends the job, behind its claim.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.pulls.resolution import Resolution

_RUNNING_STATES = (InstanceState.PENDING, InstanceState.READY, InstanceState.DRAINING)
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


def running_instances(session: Session) -> list[Instance]:
    return list(session.scalars(select(Instance).where(Instance.state.in_(_RUNNING_STATES)).order_by(Instance.seq)))


def starting_instances(session: Session, owner: str) -> int:
    """Return how many instances of an owner wait to be started, or are being started."""
    starting = select(func.count(Instance.seq)).where(Instance.state == InstanceState.PENDING, Instance.owner == owner)
    return session.scalar(starting) or 0


def record_start_progress(session: Session, instance_id: str, message: str) -> None:
    _step(session, instance_id, (InstanceState.PENDING,), message=message)


def mark_ready(session: Session, instance_id: str, *, endpoint: str, runtime_ref: str) -> bool:
    """Return whether the instance was still pending."""
    return _step(
        session,
        instance_id,
        (InstanceState.PENDING,),
        message="Takes calls.",
        state=InstanceState.READY,
        endpoint=endpoint,
        runtime_ref=runtime_ref,
        ready_at=now_ms(),
    )


def mark_failed(session: Session, instance_id: str, message: str) -> bool:
    """Write that the start failed; return whether the instance was still pending."""
    return _step(
        session, instance_id, (InstanceState.PENDING,), message=message, state=InstanceState.FAILED, ended_at=now_ms()
    )


def mark_unneeded(session: Session, instance_id: str, message: str) -> bool:
    """Stop an instance before its start. A call that waits for it looks for the current instance again."""
    return _step(
        session, instance_id, (InstanceState.PENDING,), message=message, state=InstanceState.STOPPED, ended_at=now_ms()
    )


def mark_replaced(session: Session, by: Instance) -> None:
    """Stop the other instances of the version when the instance `by` starts."""
    session.execute(
        update(Instance)
        .where(
            Instance.version_id == by.version_id,
            Instance.id != by.id,
            Instance.state.in_((InstanceState.READY, InstanceState.DRAINING)),
        )
        .values(state=InstanceState.STOPPED, message="Another image took its place.", ended_at=now_ms())
        .execution_options(synchronize_session=False)
    )


def begin_draining(session: Session, instance_id: str, message: str) -> bool:
    """Write that the instance takes no new calls; return whether it was ready."""
    return _step(
        session,
        instance_id,
        (InstanceState.READY,),
        message=message,
        state=InstanceState.DRAINING,
        draining_at=now_ms(),
    )


def mark_stopped(session: Session, instance_id: str, message: str) -> bool:
    """Return whether the instance ran until now."""
    return _step(
        session,
        instance_id,
        (InstanceState.READY, InstanceState.DRAINING),
        message=message,
        state=InstanceState.STOPPED,
        ended_at=now_ms(),
    )


def _step(session: Session, instance_id: str, seen: tuple[InstanceState, ...], **values: object) -> bool:
    return (
        session.execute(
            update(Instance)
            .where(Instance.id == instance_id, Instance.state.in_(seen))
            .values(values)
            .returning(Instance.id)
            .execution_options(synchronize_session=False)
        ).first()
        is not None
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
    return "isolated" if algorithm.settings.get("network_access") == "isolated" else "full"


def current_instance(session: Session, desired: DesiredState) -> Instance | None:
    """Return the instance for a desired state: ready, pending, or failed a moment ago."""
    return session.scalar(_CURRENT, {"version": desired.version_id, "image": desired.image, "network": desired.network})
