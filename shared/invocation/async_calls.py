"""Calls whose callers did not wait: recorded before they are made, ended once, lost when their process is."""

import uuid
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, CallRequest, CallState, Version
from shared.errors import storable

DAY_MS = 24 * 60 * 60 * 1000
MAX_ERROR_TYPE = 64
"""Characters; an algorithm can call its error anything."""
LOST = (
    "The process that made the call went away before it ended. It is not made again: whether it was done is not known."
)


def record_call(session: Session, *, caller: str, algorithm: Algorithm, version: Version, seconds: float) -> str:
    """Write down a call that is about to be made and ends within so many seconds; its id."""
    call = CallRequest(
        id=str(uuid.uuid4()),
        caller=caller,
        algorithm_id=algorithm.id,
        version_id=version.id,
        deadline_at=now_ms() + int(1000 * seconds),
    )
    session.add(call)
    session.flush()
    return call.id


@dataclass(frozen=True)
class Ending:
    """How such a call ended."""

    state: CallState
    message: str | None = None
    """What went wrong."""
    error_type: str | None = None
    duration_ms: int | None = None
    """How long the algorithm had it."""


def end_call(session: Session, request_id: str, ending: Ending) -> bool:
    """Write how a call ended; whether that was not known yet."""
    ended = session.execute(
        update(CallRequest)
        .where(CallRequest.id == request_id, CallRequest.state == CallState.RUNNING)
        .values(
            state=ending.state,
            message=None if ending.message is None else storable(ending.message),
            error_type=None if ending.error_type is None else storable(ending.error_type)[:MAX_ERROR_TYPE],
            duration_ms=ending.duration_ms,
            ended_at=now_ms(),
        )
        .returning(CallRequest.id)
        .execution_options(synchronize_session=False)
    )
    return ended.first() is not None


def lose_overdue(session: Session) -> int:
    """Write `lost` for calls that run beyond their deadline; how many there were."""
    lost = session.execute(
        update(CallRequest)
        .where(CallRequest.state == CallState.RUNNING, CallRequest.deadline_at < now_ms())
        .values(state=CallState.LOST, message=LOST, ended_at=now_ms())
        .returning(CallRequest.id)
        .execution_options(synchronize_session=False)
    )
    return len(lost.all())


def clear_old_calls(session: Session, *, keep_days: float) -> None:
    """Remove the calls that ended so long ago."""
    session.execute(
        delete(CallRequest)
        .where(CallRequest.state != CallState.RUNNING, CallRequest.deadline_at < now_ms() - int(keep_days * DAY_MS))
        .execution_options(synchronize_session=False)
    )


RECORDED = (
    select(
        CallRequest.id,
        CallRequest.caller,
        CallRequest.state,
        CallRequest.error_type,
        CallRequest.message,
        CallRequest.duration_ms,
        CallRequest.created_at,
        CallRequest.ended_at,
        Algorithm.owner,
        Algorithm.name,
        Version.git_hash,
        (CallRequest.deadline_at < now_ms()).label("overdue"),
    )
    .join(Algorithm, Algorithm.id == CallRequest.algorithm_id)
    .join(Version, Version.id == CallRequest.version_id)
    .where(CallRequest.id == bindparam("request"))
)
"""One such call, with the names of what it called; `overdue` says that its deadline is over."""
