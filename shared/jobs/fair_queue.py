"""The order of due pushes between owners: a worker takes the push of the owner with the fewest running ones.

A message only tells a worker that there is work; which push it takes is decided when it takes one. Otherwise an owner
that enqueues a thousand pushes would have all others wait behind them in the Celery queue.
"""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from shared.db.models import Job, JobKind, JobState, Owner
from shared.db.models.jobs import IS_PUSH, IS_QUEUED, LIVE_STATES
from shared.jobs.due import is_claimable

MAX_CLAIM_ATTEMPTS = 5
"""Pushes that a worker tries to claim one after the other, while other workers claim them first."""
_LIVE = select(Job.id).where(Job.id == bindparam("job"), Job.state.in_(LIVE_STATES))


def next_pushes(session: Session, job_id: str, tried: Sequence[str] = ()) -> list[str]:
    """Return the ids of due pushes in the order in which a worker should try to claim one; `job_id` comes last.

    First come the owners with the fewest running pushes, among those the owner that was served longest ago; of each
    the oldest push. When none of these (`tried`) could be claimed, the result has more pushes of the first owner. The
    cost does not grow with the queue: of each owner it is read up to the first push that is due.
    """
    if not tried:
        first = list(session.scalars(_first_of_each_owner()))
        if first:
            return first
    more = _more_of_first_owner(session, tried) if 0 < len(tried) < MAX_CLAIM_ATTEMPTS else []
    # A push whose worker was lost is not queued, but can be taken over. One that has ended was dispatched twice; that
    # is seen here, without the locks of a claim.
    is_live = job_id not in {*more, *tried} and session.scalar(_LIVE, {"job": job_id}) is not None
    return [*more, job_id] if is_live else more


@cache
def _first_of_each_owner() -> Select[tuple[str]]:
    running = aliased(Job)
    busy = (
        select(running.owner.label("owner"), func.count(running.seq).label("pushes"))
        .where(running.kind == JobKind.PUSH, running.state == JobState.RUNNING)
        .group_by(running.owner)
        .subquery()
    )
    first = (
        select(Job.seq)
        .where(Job.owner == Owner.username, Job.kind == IS_PUSH, Job.state == IS_QUEUED, is_claimable())
        .order_by(Job.seq)
        .limit(1)
        .correlate(Owner)
        .scalar_subquery()
    )
    owners = (
        select(first.label("first"), busy.c.pushes, Owner.served_at)
        .outerjoin(busy, busy.c.owner == Owner.username)
        .select_from(Owner)
        .subquery()
    )
    return (
        select(Job.id)
        .join(owners, owners.c.first == Job.seq)
        .order_by(func.coalesce(owners.c.pushes, 0), func.coalesce(owners.c.served_at, 0), Job.seq)
        .limit(MAX_CLAIM_ATTEMPTS)
    )


def _more_of_first_owner(session: Session, tried: Sequence[str]) -> list[str]:
    return list(
        session.scalars(
            select(Job.id)
            .where(
                Job.owner == select(Job.owner).where(Job.id == tried[0]).scalar_subquery(),
                Job.kind == IS_PUSH,
                Job.state == IS_QUEUED,
                is_claimable(),
                Job.id.not_in(tried),
            )
            .order_by(Job.seq)
            .limit(MAX_CLAIM_ATTEMPTS - len(tried))
        )
    )
