"""Whose turn it is among due pushes: owners one after the other, whoever asked for how many.

A nudge tells a worker that there is work; which push it takes is decided when it takes one. Otherwise an owner who
orders a thousand pushes would have everybody else wait behind them in the queue of messages.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from shared.jobs.due import may_begin
from shared.models import Job, JobKind, JobState, Owner

MOST_TRIES = 5
"""Pushes that a worker tries to claim one after the other, while others take them before it."""


def next_pushes(session: Session, nudged: str) -> list[str]:
    """The ids of due pushes in the order in which a worker should try to claim one; the nudged one last.

    First come the owners of whom the fewest pushes run, among those the one who waited longest for a turn, and of
    each the oldest push.
    """
    running = aliased(Job)
    busy = (
        select(running.owner.label("owner"), func.count(running.seq).label("pushes"))
        .where(running.kind == JobKind.PUSH, running.state == JobState.RUNNING)
        .group_by(running.owner)
        .subquery()
    )
    due = (
        select(Job.id)
        .outerjoin(Owner, Owner.username == Job.owner)
        .outerjoin(busy, busy.c.owner == Job.owner)
        .where(Job.kind == JobKind.PUSH, Job.state == JobState.QUEUED, may_begin())
        .order_by(func.coalesce(busy.c.pushes, 0), func.coalesce(Owner.served_at, 0), Job.seq)
        .limit(MOST_TRIES)
    )
    found = list(session.scalars(due))
    # A push whose worker was lost is not queued yet, but can be taken over by whoever was nudged for it.
    return [*found, *({nudged} - set(found))]
