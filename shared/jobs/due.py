"""Which jobs are due: computed by query from the rows, never carried by a message.

The conditions are built once and cached, because to build them takes longer than to run the query.
"""

from functools import cache

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from shared.db.clock import now_ms
from shared.db.models import Job, JobState, PauseCause, Registry
from shared.db.models.jobs import LIVE_STATES
from shared.jobs.dispatch import JobMessage
from shared.jobs.handlers import TASKS
from shared.registries.defaults import HAS_DEFAULT_CREDENTIALS
from shared.settings import settings

REDISPATCH_INTERVAL_MS = 30_000
"""Milliseconds until the sweep sends another message for a job; the wait grows by as much with each message."""
MAX_DISPATCHES = 20
"""The wait between two messages for a job grows no more after so many."""
MAX_REGISTRY_MESSAGES = 50


@cache
def dependencies_met() -> ColumnElement[bool]:
    awaited = aliased(Job)
    return or_(
        Job.awaits_id.is_(None),
        exists(select(awaited.id).where(awaited.id == Job.awaits_id, awaited.state == JobState.SUCCEEDED)),
    )


@cache
def is_due() -> ColumnElement[bool]:
    queued = and_(Job.state == JobState.QUEUED, or_(Job.next_attempt_at.is_(None), Job.next_attempt_at <= now_ms()))
    # The state is a condition of its own, so that an index skips the history.
    return and_(Job.state.in_(LIVE_STATES), or_(queued, lease_expired()))


@cache
def lease_expired() -> ColumnElement[bool]:
    return and_(Job.state == JobState.RUNNING, or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < now_ms()))


@cache
def lock_is_free() -> ColumnElement[bool]:
    other = aliased(Job)
    return ~exists(
        select(other.id).where(other.lock_name == Job.lock_name, other.id != Job.id, other.lease_owner.is_not(None))
    )


@cache
def registry_accepts() -> ColumnElement[bool]:
    """Return the condition that the registry of a push takes it now, and has capacity. Other jobs have no registry.

    Which registries are closed does not depend on the job, so the database finds it once for a queue of any length.
    """
    not_throttled = or_(Registry.throttled_until.is_(None), Registry.throttled_until <= now_ms())
    probe_is_due = and_(Registry.probe_at.is_not(None), Registry.probe_at <= now_ms())
    may_be_open = or_(Registry.paused_at.is_(None), Registry.paused_by == PauseCause.AUTH, probe_is_due)
    closed = select(Registry.id).where(~and_(not_throttled, may_be_open, _running_pushes() < _push_capacity()))
    # A push with credentials of its own, or of a default, may go to a registry that refused only the recorded ones.
    refused = select(Registry.id).where(Registry.paused_by == PauseCause.AUTH, ~probe_is_due)
    has_accepted_credentials = or_(
        Job.registry_id.not_in(refused), Job.credentials.is_not(None), HAS_DEFAULT_CREDENTIALS
    )
    return or_(Job.registry_id.is_(None), and_(Job.registry_id.not_in(closed), has_accepted_credentials))


@cache
def is_claimable() -> ColumnElement[bool]:
    return and_(is_due(), dependencies_met(), lock_is_free(), registry_accepts())


@cache
def registry_was_full() -> ColumnElement[bool]:
    """Return the condition that the registry `registry` had no capacity before a push to it ended just now."""
    return exists(
        select(Registry.seq).where(Registry.id == bindparam("registry"), _running_pushes() + 1 >= _push_capacity())
    )


def _running_pushes() -> ColumnElement[int]:
    # A claimable job holds no lease that lasts, so it never counts itself.
    other = aliased(Job)
    return (
        select(func.count(other.seq))
        .where(other.registry_id == Registry.id, other.lease_owner.is_not(None), other.lease_expires_at >= now_ms())
        .correlate(Registry)
        .scalar_subquery()
    )


@cache
def _push_capacity() -> ColumnElement[int]:
    default = bindparam("default_capacity", callable_=lambda: settings().registry_pushes, type_=Integer())
    # A registry that asked to slow down gets one push at a time until one has succeeded.
    return case((Registry.throttles > 0, 1), else_=func.coalesce(Registry.max_pushes, default))


def messages_for_registry(session: Session, registry_id: str) -> list[JobMessage]:
    """Return messages for the oldest pushes that a registry takes now; the end of each push brings the next message."""
    due = (
        select(Job.id, Job.kind)
        .where(Job.registry_id == registry_id, Job.state == JobState.QUEUED, is_claimable())
        .order_by(Job.seq)
        .limit(MAX_REGISTRY_MESSAGES)
    )
    return [JobMessage(job_id, kind) for job_id, kind in session.execute(due)]


def take_due_messages(session: Session, *, limit: int) -> list[JobMessage]:
    """Return messages for at most `limit` due jobs that no worker claimed after their last one, oldest first.

    The jobs are marked as dispatched now. The UPDATE repeats the condition, so that of two sweeps at the same time one
    sends the message of a job.
    """
    wait_ms = REDISPATCH_INTERVAL_MS * (1 + Job.dispatch_count)
    message_is_old = or_(Job.dispatched_at.is_(None), Job.dispatched_at < now_ms() - wait_ms)
    seen = session.execute(
        select(Job.id, Job.kind)
        .where(Job.kind.in_(list(TASKS)), message_is_old, is_claimable())
        .order_by(Job.seq)
        .limit(limit)
    ).all()
    dispatch_count = case((Job.dispatch_count < MAX_DISPATCHES, Job.dispatch_count + 1), else_=MAX_DISPATCHES)
    ours = set(
        session.scalars(
            update(Job)
            .where(Job.id.in_([job_id for job_id, _kind in seen]), message_is_old)
            .values(dispatched_at=now_ms(), dispatch_count=dispatch_count)
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        )
    )
    return [JobMessage(job_id, kind) for job_id, kind in seen if job_id in ours]
