"""What a worker writes into the row of its push: fenced by generation and claim (rule 2)."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, func, or_, select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.jobs.leases import Claim, FenceLostError
from shared.models import ImagePush, Job, PushState
from shared.pushes.events import record_event


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
    values = {"the_job": claim.job_id, "the_digest": digest, "the_image": image, "the_message": message}
    row: str | None = session.connection().execute(_SUCCESS, {**_fence_of(claim), **values}).scalar()
    if row is None:
        raise FenceLostError("a newer push or claim owns the row")
    record_event(session, row, "ended")


_FENCE = and_(
    ImagePush.id == bindparam("the_push"),
    ImagePush.generation == bindparam("the_generation"),
    ImagePush.claim == bindparam("the_claim"),
)


def _fence_of(claim: Claim) -> dict[str, Any]:
    return {"the_push": claim.push_id, "the_generation": claim.generation, "the_claim": claim.number}


def _said(progress: Progress, message: str) -> dict[str, Any]:
    return {
        "the_done_bytes": progress.done_bytes,
        "the_total_bytes": progress.total_bytes,
        "the_layers_done": progress.layers_done,
        "the_layers_total": progress.layers_total,
        "the_message": message,
    }


# A new message counts: an image that is pulled or built again before the push moves no byte of the push.
_MOVED = or_(
    ImagePush.done_bytes != bindparam("the_done_bytes"),
    ImagePush.layers_done != bindparam("the_layers_done"),
    ImagePush.message != bindparam("the_message"),
)
_PROGRESS = (
    update(ImagePush)
    .where(_FENCE)
    .values(
        done_bytes=bindparam("the_done_bytes"),
        total_bytes=bindparam("the_total_bytes"),
        layers_done=bindparam("the_layers_done"),
        layers_total=bindparam("the_layers_total"),
        message=bindparam("the_message"),
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
        message=bindparam("the_message"),
        digest=bindparam("the_digest"),
        done_bytes=ImagePush.total_bytes,
        layers_done=ImagePush.layers_total,
        finished_at=now_ms(),
        last_success_digest=bindparam("the_digest"),
        last_success_image=bindparam("the_image"),
        last_success_at=now_ms(),
        looked_at=now_ms(),
        seen_at=now_ms(),
        missing_at=None,
        # The number of the job that a caller asked for: an old push that succeeds late never becomes the latest.
        last_success_seq=select(func.coalesce(Job.request_seq, Job.seq))
        .where(Job.id == bindparam("the_job"))
        .scalar_subquery(),
    )
    .returning(ImagePush.id)
)
