"""Record asynchronous calls: before they are made, once when they end, and as lost if their process ended first."""

import uuid
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Algorithm, CallRequest, CallState, Version
from shared.plain_text import plain_text

DAY_MS = 24 * 60 * 60 * 1000
MAX_ERROR_TYPE = 64
"""Characters. The algorithm chooses this text."""
LOST = (
    "The process that made the call ended before the call did. The call is not made again, because it is not known "
    "whether it was done."
)
CALL_WITH_NAMES = (
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
"""One call, with the names of its algorithm and version; `overdue` is whether its deadline has passed."""


def record_call(session: Session, *, caller: str, algorithm: Algorithm, version: Version, max_seconds: float) -> str:
    """Record a call that is about to be made and will end within `max_seconds`. Return the id of the record."""
    call = CallRequest(
        id=str(uuid.uuid4()),
        caller=caller,
        algorithm_id=algorithm.id,
        version_id=version.id,
        deadline_at=now_ms() + int(1000 * max_seconds),
    )
    session.add(call)
    session.flush()
    return call.id


@dataclass(frozen=True)
class CallOutcome:
    """The outcome of an asynchronous call."""

    state: CallState
    message: str | None = None
    error_type: str | None = None
    duration_ms: int | None = None
    """Time in the algorithm."""


def end_call(session: Session, request_id: str, outcome: CallOutcome) -> bool:
    """Record the outcome of a call. Return False if it was recorded before."""
    ended = session.execute(
        update(CallRequest)
        .where(CallRequest.id == request_id, CallRequest.state == CallState.RUNNING)
        .values(
            state=outcome.state,
            message=outcome.message,
            error_type=None if outcome.error_type is None else plain_text(outcome.error_type)[:MAX_ERROR_TYPE],
            duration_ms=outcome.duration_ms,
            ended_at=now_ms(),
        )
        .returning(CallRequest.id)
        .execution_options(synchronize_session=False)
    )
    return ended.first() is not None


def mark_overdue_lost(session: Session) -> int:
    """Record calls that run beyond their deadline as lost. Return their number."""
    lost = session.execute(
        update(CallRequest)
        .where(CallRequest.state == CallState.RUNNING, CallRequest.deadline_at < now_ms())
        .values(state=CallState.LOST, message=LOST, ended_at=now_ms())
        .returning(CallRequest.id)
        .execution_options(synchronize_session=False)
    )
    return len(lost.all())


def delete_old_calls(session: Session, *, keep_days: float) -> None:
    session.execute(
        delete(CallRequest)
        .where(CallRequest.state != CallState.RUNNING, CallRequest.deadline_at < now_ms() - int(keep_days * DAY_MS))
        .execution_options(synchronize_session=False)
    )
