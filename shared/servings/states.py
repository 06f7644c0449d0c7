"""From wanted to stopped: every step repeats the state that it was seen in, so two who see the same take it once.

What a start writes needs no other fence: it stands in the transaction that ends its job, behind the job's claim.
"""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import Serving, ServingState

RUNNING = (ServingState.WANTED, ServingState.READY, ServingState.DRAINING)


def running_servings(session: Session) -> list[Serving]:
    """Everything that runs or is about to, oldest first."""
    return list(session.scalars(select(Serving).where(Serving.state.in_(RUNNING)).order_by(Serving.seq)))


def show_start(session: Session, serving_id: str, message: str) -> None:
    """Say how far its start is, or why it waits."""
    _step(session, serving_id, (ServingState.WANTED,), message=message)


def mark_ready(session: Session, serving_id: str, *, endpoint: str, runs_as: str) -> bool:
    """It takes calls from now on; whether it was still wanted."""
    ready = {"state": ServingState.READY, "endpoint": endpoint, "runs_as": runs_as, "ready_at": now_ms()}
    return _step(session, serving_id, (ServingState.WANTED,), message="Takes calls.", **ready)


def mark_failed(session: Session, serving_id: str, message: str) -> bool:
    """It could not be started."""
    failed = {"state": ServingState.FAILED, "ended_at": now_ms()}
    return _step(session, serving_id, (ServingState.WANTED,), message=message, **failed)


def mark_unwanted(session: Session, serving_id: str, message: str) -> bool:
    """It is not started any more; who waits for it looks again for what serves the version."""
    return _step(
        session, serving_id, (ServingState.WANTED,), message=message, state=ServingState.STOPPED, ended_at=now_ms()
    )


def mark_replaced(session: Session, by: Serving) -> None:
    """What took calls of the version takes none any more: it ends as this one is started."""
    session.execute(
        update(Serving)
        .where(
            Serving.version_id == by.version_id,
            Serving.id != by.id,
            Serving.state.in_((ServingState.READY, ServingState.DRAINING)),
        )
        .values(state=ServingState.STOPPED, message="Another image took its place.", ended_at=now_ms())
        .execution_options(synchronize_session=False)
    )


def begin_draining(session: Session, serving_id: str, message: str) -> bool:
    """It takes no new calls from now on; whether it took some until now."""
    draining = {"state": ServingState.DRAINING, "draining_at": now_ms()}
    return _step(session, serving_id, (ServingState.READY,), message=message, **draining)


def mark_stopped(session: Session, serving_id: str, message: str) -> bool:
    """It has ended; whether it ran until now."""
    stopped = {"state": ServingState.STOPPED, "ended_at": now_ms()}
    return _step(session, serving_id, (ServingState.READY, ServingState.DRAINING), message=message, **stopped)


def _step(session: Session, serving_id: str, seen: tuple[ServingState, ...], **values: object) -> bool:
    stepped = session.execute(
        update(Serving)
        .where(Serving.id == serving_id, Serving.state.in_(seen))
        .values(values)
        .returning(Serving.id)
        .execution_options(synchronize_session=False)
    )
    return stepped.first() is not None
