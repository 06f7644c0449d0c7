"""Which jobs are due: computed by query from the rows, never carried by an event.

The conditions are made once: they are asked at every claim, and to make them takes longer than to answer them.
"""

from functools import cache

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from shared.clock import now_ms
from shared.jobs.nudges import TASKS, Nudge
from shared.models import Job, JobState, PauseCause, Registry
from shared.models.jobs import LIVE_STATES
from shared.settings import settings

NUDGE_PATIENCE_MS = 30_000
"""A nudge that was sent is given this long, and this much longer with each, before the sweep sends another."""
MOST_NUDGES = 20


@cache
def waits_for_nothing() -> ColumnElement[bool]:
    """The job that this one waits for, if any, has succeeded."""
    awaited = aliased(Job)
    succeeded = exists(select(awaited.id).where(awaited.id == Job.awaits_id, awaited.state == JobState.SUCCEEDED))
    return or_(Job.awaits_id.is_(None), succeeded)


@cache
def time_has_come() -> ColumnElement[bool]:
    """The job is queued and its next try is due, or its lease has run out."""
    queued = and_(Job.state == JobState.QUEUED, or_(Job.next_attempt_at.is_(None), Job.next_attempt_at <= now_ms()))
    # Said once for both, so that an index leads past the history.
    return and_(Job.state.in_(LIVE_STATES), or_(queued, lease_ran_out()))


@cache
def lease_ran_out() -> ColumnElement[bool]:
    """A worker claimed the job and was not heard of since."""
    return and_(Job.state == JobState.RUNNING, or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < now_ms()))


@cache
def place_is_free() -> ColumnElement[bool]:
    """No other worker is at the same image reference."""
    other = aliased(Job)
    return ~exists(
        select(other.id).where(other.lock_key == Job.lock_key, other.id != Job.id, other.lease_owner.is_not(None))
    )


@cache
def registry_takes_it() -> ColumnElement[bool]:
    """The registry of a push is open, or lets this one try, and has room for one more. Other jobs have no registry.

    Which registries are closed does not depend on the job, so it is found out once for a queue of any length.
    """
    quiet = or_(Registry.throttled_until.is_(None), Registry.throttled_until <= now_ms())
    tries_it = and_(Registry.probe_at.is_not(None), Registry.probe_at <= now_ms())
    let_in = or_(Registry.paused_at.is_(None), Registry.paused_by == PauseCause.AUTH, tries_it)
    closed = select(Registry.id).where(~and_(quiet, let_in, _in_it() < _room_in_it()))
    # Whoever brings credentials of its own may go where only the recorded ones are refused.
    refused = select(Registry.id).where(Registry.paused_by == PauseCause.AUTH, ~tries_it)
    let_in_by_it = and_(
        Job.registry_id.not_in(closed), or_(Job.credentials.is_not(None), Job.registry_id.not_in(refused))
    )
    return or_(Job.registry_id.is_(None), let_in_by_it)


@cache
def may_begin() -> ColumnElement[bool]:
    """A worker may claim the job now."""
    return and_(time_has_come(), waits_for_nothing(), place_is_free(), registry_takes_it())


@cache
def registry_was_full() -> ColumnElement[bool]:
    """Before one push just ended, the registry `the_registry` had no room."""
    return exists(select(Registry.seq).where(Registry.id == bindparam("the_registry"), _in_it() + 1 >= _room_in_it()))


def _in_it() -> ColumnElement[int]:
    # A job that may begin holds no lease that lasts, so it never counts itself.
    other = aliased(Job)
    busy = select(func.count(other.seq)).where(
        other.registry_id == Registry.id, other.lease_owner.is_not(None), other.lease_expires_at >= now_ms()
    )
    return busy.correlate(Registry).scalar_subquery()


@cache
def _room_in_it() -> ColumnElement[int]:
    usual = bindparam("usual_room", callable_=lambda: settings().registry_pushes, type_=Integer())
    # A registry that asked to slow down gets one push at a time until one has succeeded.
    return case((Registry.throttles > 0, 1), else_=func.coalesce(Registry.max_pushes, usual))


MOST_AT_ONCE = 50


def nudges_for_registry(session: Session, registry_id: str) -> list[Nudge]:
    """Nudges for the pushes that a registry takes now; of a long queue only for its beginning, the rest follow."""
    due = (
        select(Job.id, Job.kind)
        .where(Job.registry_id == registry_id, Job.state == JobState.QUEUED, may_begin())
        .order_by(Job.seq)
        .limit(MOST_AT_ONCE)
    )
    return [Nudge(job_id, kind) for job_id, kind in session.execute(due)]


def take_due_nudges(session: Session, *, limit: int) -> list[Nudge]:
    """The due jobs whose last nudge has gone unheard, marked as nudged now; at most `limit`, oldest first.

    The mark repeats the question, so two sweeps at once send a job's nudge once.
    """
    patience = NUDGE_PATIENCE_MS * (1 + Job.nudges)
    unheard = or_(Job.nudged_at.is_(None), Job.nudged_at < now_ms() - patience)
    seen = session.execute(
        select(Job.id, Job.kind).where(Job.kind.in_(list(TASKS)), unheard, may_begin()).order_by(Job.seq).limit(limit)
    ).all()
    nudges = case((Job.nudges < MOST_NUDGES, Job.nudges + 1), else_=MOST_NUDGES)
    marked = session.scalars(
        update(Job)
        .where(Job.id.in_([job_id for job_id, _kind in seen]), unheard)
        .values(nudged_at=now_ms(), nudges=nudges)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    ours = set(marked)
    return [Nudge(job_id, kind) for job_id, kind in seen if job_id in ours]
