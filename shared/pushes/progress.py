"""What a worker writes into the row of its push: fenced by generation and claim (rule 2)."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, or_, select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.jobs.claims import Claim, FenceLost
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
        FenceLost: a newer push or claim owns the row.
    """
    # A new message counts: an image that is pulled or built again before the push moves no byte of the push.
    moved = or_(
        ImagePush.done_bytes != progress.done_bytes,
        ImagePush.layers_done != progress.layers_done,
        ImagePush.message != message,
    )
    written = session.execute(
        update(ImagePush)
        .where(_fence(claim))
        .values(
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            layers_done=progress.layers_done,
            layers_total=progress.layers_total,
            message=message,
            moved_at=case((moved, now_ms()), else_=ImagePush.moved_at),
            state=case((moved, PushState.IN_PROGRESS.value), else_=ImagePush.state),
        )
        .returning(ImagePush.id)
        .execution_options(synchronize_session=False)
    )
    if written.first() is None:
        raise FenceLost("a newer push or claim owns the row")


def write_success(session: Session, claim: Claim, *, digest: str, image: str, message: str) -> None:
    """Show that the registry confirmed the digest. Which good push is the latest goes by the order of asking.

    Raises:
        FenceLost: a newer push or claim owns the row.
    """
    # The job's own number: an old push that succeeds late never becomes the latest.
    asked = select(Job.seq).where(Job.id == claim.job_id).scalar_subquery()
    written = session.execute(
        update(ImagePush)
        .where(_fence(claim))
        .values(
            state=PushState.SUCCEEDED,
            message=message,
            digest=digest,
            done_bytes=ImagePush.total_bytes,
            layers_done=ImagePush.layers_total,
            finished_at=now_ms(),
            last_success_digest=digest,
            last_success_image=image,
            last_success_at=now_ms(),
            last_success_order=asked,
        )
        .returning(ImagePush.id)
        .execution_options(synchronize_session=False)
    )
    row = written.scalar()
    if row is None:
        raise FenceLost("a newer push or claim owns the row")
    record_event(session, row, "ended")


def _fence(claim: Claim) -> ColumnElement[bool]:
    return and_(
        ImagePush.id == claim.push_id, ImagePush.generation == claim.generation, ImagePush.claim == claim.number
    )
