"""Pushing again what a registry does not have any more."""

from sqlalchemy.orm import Session

from shared.models import PushState
from shared.orders.again import Unrepeatable, lock_row, repeatable
from shared.orders.ordered import Enqueued


def repair_push(session: Session, push_id: str, digest: str) -> Enqueued | str:
    """Order the push of a row whose last good image, `digest`, is missing; else why it is not ordered.

    One whose latest push failed, or is under way, is left to whoever asked for that.
    """
    push, registry = lock_row(session, push_id)
    if push.state != PushState.SUCCEEDED or push.last_success_digest != digest or push.missing_at is None:
        return "Its latest push is another one's business: it failed, is under way, or brought the image back."
    found = repeatable(session, push, registry, None)
    if isinstance(found, Unrepeatable):
        return found.reason
    return found.order(session, None, request_seq=push.last_success_seq)
