"""From wanted to stopped: every step repeats the state that it was seen in, so two who see the same take it once.

What a start writes needs no other fence: it stands in the transaction that ends its job, behind the job's claim.
"""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Instance, InstanceState

RUNNING = (InstanceState.PENDING, InstanceState.READY, InstanceState.DRAINING)


def running_instances(session: Session) -> list[Instance]:
    """Everything that runs or is about to, oldest first."""
    return list(session.scalars(select(Instance).where(Instance.state.in_(RUNNING)).order_by(Instance.seq)))


def record_start_progress(session: Session, instance_id: str, message: str) -> None:
    """Say how far its start is, or why it waits."""
    _step(session, instance_id, (InstanceState.PENDING,), message=message)


def mark_ready(session: Session, instance_id: str, *, endpoint: str, runtime_ref: str) -> bool:
    """It takes calls from now on; whether it was still wanted."""
    ready = {"state": InstanceState.READY, "endpoint": endpoint, "runtime_ref": runtime_ref, "ready_at": now_ms()}
    return _step(session, instance_id, (InstanceState.PENDING,), message="Takes calls.", **ready)


def mark_failed(session: Session, instance_id: str, message: str) -> bool:
    """It could not be started."""
    failed = {"state": InstanceState.FAILED, "ended_at": now_ms()}
    return _step(session, instance_id, (InstanceState.PENDING,), message=message, **failed)


def mark_unneeded(session: Session, instance_id: str, message: str) -> bool:
    """It is not started any more; who waits for it looks again for what serves the version."""
    return _step(
        session, instance_id, (InstanceState.PENDING,), message=message, state=InstanceState.STOPPED, ended_at=now_ms()
    )


def mark_replaced(session: Session, by: Instance) -> None:
    """What took calls of the version takes none any more: it ends as this one is started."""
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
    """It takes no new calls from now on; whether it took some until now."""
    draining = {"state": InstanceState.DRAINING, "draining_at": now_ms()}
    return _step(session, instance_id, (InstanceState.READY,), message=message, **draining)


def mark_stopped(session: Session, instance_id: str, message: str) -> bool:
    """It has ended; whether it ran until now."""
    stopped = {"state": InstanceState.STOPPED, "ended_at": now_ms()}
    return _step(session, instance_id, (InstanceState.READY, InstanceState.DRAINING), message=message, **stopped)


def _step(session: Session, instance_id: str, seen: tuple[InstanceState, ...], **values: object) -> bool:
    stepped = session.execute(
        update(Instance)
        .where(Instance.id == instance_id, Instance.state.in_(seen))
        .values(values)
        .returning(Instance.id)
        .execution_options(synchronize_session=False)
    )
    return stepped.first() is not None
