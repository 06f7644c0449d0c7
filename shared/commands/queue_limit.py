"""The limit of the jobs that one owner has in the queue."""

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from shared.db.models import Job
from shared.db.models.jobs import IS_LIVE
from shared.errors import LimitReachedError
from shared.settings import settings

RETRY_SECONDS = 30
_LIVE_JOBS = select(func.count()).select_from(
    select(Job.seq).where(Job.owner == bindparam("owner"), IS_LIVE).limit(bindparam("limit")).subquery()
)


def room_in_queue(session: Session, owner: str) -> int:
    """Return how many jobs of an owner may still be enqueued."""
    maximum = settings().max_queued_jobs_per_owner
    return maximum - session.scalars(_LIVE_JOBS, {"owner": owner, "limit": maximum}).one()


def full_queue_message(owner: str) -> str:
    return (
        f"{settings().max_queued_jobs_per_owner} jobs of {owner} are queued or running, the limit "
        "(LONGSHORE_MAX_QUEUED_JOBS_PER_OWNER); wait until some have ended, or cancel them."
    )


def require_room_in_queue(session: Session, owner: str) -> None:
    """Refuse further jobs of an owner who has reached the limit.

    Raises:
        LimitReachedError: the limit is reached.
    """
    if room_in_queue(session, owner) <= 0:
        raise LimitReachedError(full_queue_message(owner), retry_after=RETRY_SECONDS)
