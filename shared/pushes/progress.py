"""Writes of a worker to the row of its push, fenced by generation and claim (rule 2); and the history of push rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, Text, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import Base, ImagePush, Job, PushEvent, PushState
from shared.fence import Claim, FenceLostError
from shared.webhooks.events import emit_push

_FENCE = and_(
    ImagePush.id == bindparam("push"),
    ImagePush.generation == bindparam("held_generation"),
    ImagePush.claim == bindparam("held_claim"),
)
# A new message counts as progress: pulling or rebuilding the image before the push sends no byte of the push.
_HAS_PROGRESSED = or_(
    ImagePush.done_bytes != bindparam("new_done_bytes"),
    ImagePush.layers_done != bindparam("new_layers_done"),
    ImagePush.message != bindparam("new_message"),
)
_WRITE_PROGRESS = (
    update(ImagePush)
    .where(_FENCE)
    .values(
        done_bytes=bindparam("new_done_bytes"),
        total_bytes=bindparam("new_total_bytes"),
        layers_done=bindparam("new_layers_done"),
        layers_total=bindparam("new_layers_total"),
        message=bindparam("new_message"),
        progressed_at=case((_HAS_PROGRESSED, now_ms()), else_=ImagePush.progressed_at),
        state=case((_HAS_PROGRESSED, PushState.IN_PROGRESS.value), else_=ImagePush.state),
    )
    .returning(ImagePush.id)
)
_WRITE_SUCCESS = (
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
        # The number of the job that a caller requested: an old push that succeeds late never becomes the latest.
        last_success_seq=select(func.coalesce(Job.request_seq, Job.seq))
        .where(Job.id == bindparam("job"))
        .scalar_subquery(),
    )
    .returning(ImagePush.id)
)
_RECORD_EVENT = insert(Base.metadata.tables[PushEvent.__tablename__]).from_select(
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


@dataclass
class BlobProgress:
    """Progress of one blob. A blob that the registry has already is done, with no bytes."""

    done_bytes: int = 0
    total_bytes: int = 0
    is_done: bool = False
    is_layer: bool = True


@dataclass(frozen=True)
class Progress:
    """Progress of a push, in bytes and layers.

    `total_bytes` may grow while a push runs: the engine tells the size of a layer only when it begins to send it.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0

    @classmethod
    def of(cls, blobs: Iterable[BlobProgress]) -> "Progress":
        blobs = list(blobs)
        return cls(
            done_bytes=sum(blob.done_bytes for blob in blobs),
            total_bytes=sum(blob.total_bytes for blob in blobs),
            layers_done=sum(blob.is_done for blob in blobs if blob.is_layer),
            layers_total=sum(blob.is_layer for blob in blobs),
        )


def write_progress(session: Session, claim: Claim, progress: Progress, message: str) -> None:
    """Write the progress of a push. A stalled push that makes progress is in progress again.

    Raises:
        FenceLostError: a newer push or claim owns the row.
    """
    values = {
        "new_done_bytes": progress.done_bytes,
        "new_total_bytes": progress.total_bytes,
        "new_layers_done": progress.layers_done,
        "new_layers_total": progress.layers_total,
        "new_message": message,
    }
    if session.connection().execute(_WRITE_PROGRESS, {**_fence_of(claim), **values}).first() is None:
        raise FenceLostError("a newer push or claim owns the row")


def write_success(session: Session, claim: Claim, *, digest: str, image: str, message: str) -> None:
    """Write that the registry confirmed the digest. The order of the requests decides which success is the latest.

    Raises:
        FenceLostError: a newer push or claim owns the row.
    """
    push_id: str | None = (
        session.connection()
        .execute(
            _WRITE_SUCCESS,
            {**_fence_of(claim), "job": claim.job_id, "new_digest": digest, "new_image": image, "new_message": message},
        )
        .scalar()
    )
    if push_id is None:
        raise FenceLostError("a newer push or claim owns the row")
    record_event(session, push_id, "ended")


def _fence_of(claim: Claim) -> dict[str, Any]:
    return {"push": claim.push_id, "held_generation": claim.generation, "held_claim": claim.number}


def record_event(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Append the present state of a push row to its history, and emit the event to webhooks.

    `message` replaces that of the row in the history.
    """
    session.execute(_RECORD_EVENT, {"push": push_id, "event_kind": kind, "new_message": message})
    emit_push(session, push_id, kind, message)
