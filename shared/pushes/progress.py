"""The history of push rows: what they said before they were overwritten; and who is told of it.

What a worker writes into the row of its push: fenced by generation and claim (rule 2).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, Text, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Base, ImagePush, Job, PushEvent, PushState
from shared.fence import Claim, FenceLostError
from shared.webhooks.events import emit_push


def record_event(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Append what the row says now to its history, as one statement on the row itself, and tell the webhooks."""
    session.execute(_RECORDED, {"push": push_id, "event_kind": kind, "new_message": message})
    emit_push(session, push_id, kind, message)


_RECORDED = insert(Base.metadata.tables[PushEvent.__tablename__]).from_select(
    ["push_id", "job_id", "generation", "kind", "state", "message", "digest", "created_at"],
    select(
        ImagePush.id,
        ImagePush.job_id,
        ImagePush.generation,
        bindparam("event_kind", type_=String()),
        ImagePush.state,
        func.coalesce(bindparam("new_message", type_=Text()), ImagePush.message),
        ImagePush.digest,
        now_ms(),
    ).where(ImagePush.id == bindparam("push")),
)


@dataclass(frozen=True)
class Progress:
    """How far a push is, in bytes and layers."""

    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0


def write_progress(session: Session, claim: Claim, progress: Progress, message: str) -> None:
    """Show how far the push is; a stalled row in which something moves again is in progress.

    Raises:
        FenceLostError: a newer push or claim owns the row.
    """
    written = session.connection().execute(_PROGRESS, {**_fence_of(claim), **_said(progress, message)})
    if written.first() is None:
        raise FenceLostError("a newer push or claim owns the row")


def write_success(session: Session, claim: Claim, *, digest: str, image: str, message: str) -> None:
    """Show that the registry confirmed the digest. Which good push is the latest goes by the order of asking.

    Raises:
        FenceLostError: a newer push or claim owns the row.
    """
    values = {"job": claim.job_id, "new_digest": digest, "new_image": image, "new_message": message}
    row: str | None = session.connection().execute(_SUCCESS, {**_fence_of(claim), **values}).scalar()
    if row is None:
        raise FenceLostError("a newer push or claim owns the row")
    record_event(session, row, "ended")


_FENCE = and_(
    ImagePush.id == bindparam("push"),
    ImagePush.generation == bindparam("held_generation"),
    ImagePush.claim == bindparam("held_claim"),
)


def _fence_of(claim: Claim) -> dict[str, Any]:
    return {"push": claim.push_id, "held_generation": claim.generation, "held_claim": claim.number}


def _said(progress: Progress, message: str) -> dict[str, Any]:
    return {
        "new_done_bytes": progress.done_bytes,
        "new_total_bytes": progress.total_bytes,
        "new_layers_done": progress.layers_done,
        "new_layers_total": progress.layers_total,
        "new_message": message,
    }


# A new message counts: an image that is pulled or built again before the push moves no byte of the push.
_MOVED = or_(
    ImagePush.done_bytes != bindparam("new_done_bytes"),
    ImagePush.layers_done != bindparam("new_layers_done"),
    ImagePush.message != bindparam("new_message"),
)
_PROGRESS = (
    update(ImagePush)
    .where(_FENCE)
    .values(
        done_bytes=bindparam("new_done_bytes"),
        total_bytes=bindparam("new_total_bytes"),
        layers_done=bindparam("new_layers_done"),
        layers_total=bindparam("new_layers_total"),
        message=bindparam("new_message"),
        progressed_at=case((_MOVED, now_ms()), else_=ImagePush.progressed_at),
        state=case((_MOVED, PushState.IN_PROGRESS.value), else_=ImagePush.state),
    )
    .returning(ImagePush.id)
)
_SUCCESS = (
    update(ImagePush)
    .where(_FENCE)
    .values(
        state=PushState.SUCCEEDED,
        message=bindparam("new_message"),
        digest=bindparam("new_digest"),
        done_bytes=ImagePush.total_bytes,
        layers_done=ImagePush.layers_total,
        finished_at=now_ms(),
        last_success_digest=bindparam("new_digest"),
        last_success_image=bindparam("new_image"),
        last_success_at=now_ms(),
        looked_at=now_ms(),
        seen_at=now_ms(),
        missing_at=None,
        # The number of the job that a caller asked for: an old push that succeeds late never becomes the latest.
        last_success_seq=select(func.coalesce(Job.request_seq, Job.seq))
        .where(Job.id == bindparam("job"))
        .scalar_subquery(),
    )
    .returning(ImagePush.id)
)
