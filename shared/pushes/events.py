"""The history of push rows: what they said before they were overwritten; and who is told of it."""

from sqlalchemy import String, Text, bindparam, func, insert, select
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import Base, ImagePush, PushEvent
from shared.webhooks.outbox import emit_push


def record_event(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Append what the row says now to its history, as one statement on the row itself, and tell the webhooks."""
    session.execute(_RECORDED, {"the_push": push_id, "the_kind": kind, "the_message": message})
    emit_push(session, push_id, kind, message)


_RECORDED = insert(Base.metadata.tables[PushEvent.__tablename__]).from_select(
    ["push_id", "job_id", "generation", "kind", "state", "message", "digest", "created_at"],
    select(
        ImagePush.id,
        ImagePush.job_id,
        ImagePush.generation,
        bindparam("the_kind", type_=String()),
        ImagePush.state,
        func.coalesce(bindparam("the_message", type_=Text()), ImagePush.message),
        ImagePush.digest,
        now_ms(),
    ).where(ImagePush.id == bindparam("the_push")),
)
