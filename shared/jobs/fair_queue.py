"""Whose turn it is among due pushes: owners one after the other, whoever asked for how many.

A message tells a worker that there is work; which push it takes is decided when it takes one. Otherwise an owner who
orders a thousand pushes would have everybody else wait behind them in the queue of messages.
"""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from shared.db.models import Job, JobKind, JobState, Owner
from shared.db.models.jobs import IS_PUSH, IS_QUEUED, LIVE_STATES
from shared.jobs.due import is_claimable

MAX_TRIES = 5
"""Pushes that a worker tries to claim one after the other, while others take them before it."""


def next_pushes(session: Session, job_id: str, tried: Sequence[str] = ()) -> list[str]:
    """The ids of due pushes in the order in which a worker should try to claim one; the dispatched one last.

    First come the owners of whom the fewest pushes run, among those the one who waited longest for a turn; of each the
    oldest push. Asked again with what was `tried` in vain, it gives further ones of the first owner. The length of the
    queue costs nothing: of each owner it is read until the first push that is due.
    """
    if not tried:
        found = list(session.scalars(_first_of_each_owner()))
        if found:
            return found
    further = _further_ones(session, tried) if 0 < len(tried) < MAX_TRIES else []
    # A push whose worker was lost is not queued yet, but can be taken over by whoever was dispatched for it. One that has
    # ended was dispatched for twice: that is seen here, without the lock that a claim takes.
    is_open = job_id not in {*further, *tried} and session.scalar(_LIVE, {"job": job_id}) is not None
    return [*further, job_id] if is_open else further


_LIVE = select(Job.id).where(Job.id == bindparam("job"), Job.state.in_(LIVE_STATES))


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
        .limit(MAX_TRIES)
    )


def _further_ones(session: Session, tried: Sequence[str]) -> list[str]:
    owner = select(Job.owner).where(Job.id == tried[0]).scalar_subquery()
    further = (
        select(Job.id)
        .where(Job.owner == owner, Job.kind == IS_PUSH, Job.state == IS_QUEUED, is_claimable(), Job.id.not_in(tried))
        .order_by(Job.seq)
        .limit(MAX_TRIES - len(tried))
    )
    return list(session.scalars(further))
