"""The history of push rows: what they said before they were overwritten; and who is told of it."""

from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import ImagePush, PushEvent
from shared.webhooks.outbox import emit_push


def record_event(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Append what the row says now to its history, as one statement on the row itself, and tell the webhooks."""
    said = ImagePush.message if message is None else literal(message)
    session.execute(
        insert(PushEvent).from_select(
            ["push_id", "job_id", "generation", "kind", "state", "message", "digest", "created_at"],
            select(
                ImagePush.id,
                ImagePush.job_id,
                ImagePush.generation,
                literal(kind),
                ImagePush.state,
                said,
                ImagePush.digest,
                now_ms(),
            ).where(ImagePush.id == push_id),
        )
    )
    emit_push(session, push_id, kind, message)
