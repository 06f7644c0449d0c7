"""Which jobs are due: computed by query from the rows, never carried by an event.

The conditions are made once: they are asked at every claim, and to make them takes longer than to answer them.
"""

from functools import cache

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now_ms
from shared.db.models import Job, JobState, PauseCause, Registry
from shared.db.models.jobs import LIVE_STATES
from shared.jobs.dispatch import TASKS, JobMessage
from shared.settings import settings

REDISPATCH_INTERVAL_MS = 30_000
"""A message that was sent is given this long, and this much longer with each, before the sweep sends another."""
MAX_DISPATCHES = 20


@cache
def dependencies_met() -> ColumnElement[bool]:
    """The job that this one waits for, if any, has succeeded."""
    awaited = aliased(Job)
    succeeded = exists(select(awaited.id).where(awaited.id == Job.awaits_id, awaited.state == JobState.SUCCEEDED))
    return or_(Job.awaits_id.is_(None), succeeded)


@cache
def is_due() -> ColumnElement[bool]:
    """The job is queued and its next try is due, or its lease has run out."""
    queued = and_(Job.state == JobState.QUEUED, or_(Job.next_attempt_at.is_(None), Job.next_attempt_at <= now_ms()))
    # Said once for both, so that an index leads past the history.
    return and_(Job.state.in_(LIVE_STATES), or_(queued, lease_expired()))


@cache
def lease_expired() -> ColumnElement[bool]:
    """A worker claimed the job and was not heard of since."""
    return and_(Job.state == JobState.RUNNING, or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < now_ms()))


@cache
def lock_is_free() -> ColumnElement[bool]:
    """No other worker is at the same image reference."""
    other = aliased(Job)
    return ~exists(
        select(other.id).where(other.lock_name == Job.lock_name, other.id != Job.id, other.lease_owner.is_not(None))
    )


@cache
def registry_accepts() -> ColumnElement[bool]:
    """The registry of a push is open, or lets this one try, and has room for one more. Other jobs have no registry.

    Which registries are closed does not depend on the job, so it is found out once for a queue of any length.
    """
    quiet = or_(Registry.throttled_until.is_(None), Registry.throttled_until <= now_ms())
    tries_it = and_(Registry.probe_at.is_not(None), Registry.probe_at <= now_ms())
    let_in = or_(Registry.paused_at.is_(None), Registry.paused_by == PauseCause.AUTH, tries_it)
    closed = select(Registry.id).where(~and_(quiet, let_in, _running_pushes() < _push_capacity()))
    # Whoever brings credentials of its own may go where only the recorded ones are refused.
    refused = select(Registry.id).where(Registry.paused_by == PauseCause.AUTH, ~tries_it)
    let_in_by_it = and_(
        Job.registry_id.not_in(closed), or_(Job.credentials.is_not(None), Job.registry_id.not_in(refused))
    )
    return or_(Job.registry_id.is_(None), let_in_by_it)


@cache
def is_claimable() -> ColumnElement[bool]:
    """A worker may claim the job now."""
    return and_(is_due(), dependencies_met(), lock_is_free(), registry_accepts())


@cache
def registry_was_full() -> ColumnElement[bool]:
    """Before one push just ended, the registry `registry` had no room."""
    return exists(
        select(Registry.seq).where(Registry.id == bindparam("registry"), _running_pushes() + 1 >= _push_capacity())
    )


def _running_pushes() -> ColumnElement[int]:
    # A job that may begin holds no lease that lasts, so it never counts itself.
    other = aliased(Job)
    busy = select(func.count(other.seq)).where(
        other.registry_id == Registry.id, other.lease_owner.is_not(None), other.lease_expires_at >= now_ms()
    )
    return busy.correlate(Registry).scalar_subquery()


@cache
def _push_capacity() -> ColumnElement[int]:
    usual = bindparam("usual_room", callable_=lambda: settings().registry_pushes, type_=Integer())
    # A registry that asked to slow down gets one push at a time until one has succeeded.
    return case((Registry.throttles > 0, 1), else_=func.coalesce(Registry.max_pushes, usual))


MAX_MESSAGES = 50


def messages_for_registry(session: Session, registry_id: str) -> list[JobMessage]:
    """Messages for the pushes that a registry takes now; of a long queue only for its beginning, the rest follow."""
    due = (
        select(Job.id, Job.kind)
        .where(Job.registry_id == registry_id, Job.state == JobState.QUEUED, is_claimable())
        .order_by(Job.seq)
        .limit(MAX_MESSAGES)
    )
    return [JobMessage(job_id, kind) for job_id, kind in session.execute(due)]


def take_due_messages(session: Session, *, limit: int) -> list[JobMessage]:
    """The due jobs whose last message has gone unheard, marked as dispatched now; at most `limit`, oldest first.

    The mark repeats the question, so two sweeps at once send a job's message once.
    """
    patience = REDISPATCH_INTERVAL_MS * (1 + Job.dispatch_count)
    unheard = or_(Job.dispatched_at.is_(None), Job.dispatched_at < now_ms() - patience)
    seen = session.execute(
        select(Job.id, Job.kind)
        .where(Job.kind.in_(list(TASKS)), unheard, is_claimable())
        .order_by(Job.seq)
        .limit(limit)
    ).all()
    dispatch_count = case((Job.dispatch_count < MAX_DISPATCHES, Job.dispatch_count + 1), else_=MAX_DISPATCHES)
    marked = session.scalars(
        update(Job)
        .where(Job.id.in_([job_id for job_id, _kind in seen]), unheard)
        .values(dispatched_at=now_ms(), dispatch_count=dispatch_count)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    ours = set(marked)
    return [JobMessage(job_id, kind) for job_id, kind in seen if job_id in ours]
