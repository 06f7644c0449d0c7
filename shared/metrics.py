"""The metrics of an installation: counts over rows, in a fixed number of queries."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import ImagePush, Job, JobKind, JobState, PauseCause, Registry, WebhookDelivery
from shared.db.models.jobs import LIVE_STATES
from shared.db.models.pushes import STALLED
from shared.jobs.due import is_claimable
from shared.jobs.handlers import TASKS
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import live_workers, sweep_age_seconds
from shared.pushes.queries import Counts, count_events, count_pushes


@dataclass(frozen=True)
class Metric:
    """One sample of a metric."""

    name: str
    labels: dict[str, str]
    value: float


def metrics(session: Session) -> Iterable[Metric]:
    yield from _jobs(session)
    yield from _waiting(session)
    events = count_events(session)
    yield from _pushes(session, events)
    yield from _history(events)
    yield from _workers(session)
    yield from _registries(session)
    yield from (
        Metric("webhook_deliveries", {"state": state}, number)
        for state, number in session.execute(
            select(WebhookDelivery.state, func.count(WebhookDelivery.seq)).group_by(WebhookDelivery.state)
        )
    )
    age = sweep_age_seconds(session)
    if age is not None:
        yield Metric("sweep_age_seconds", {}, age)


def _jobs(session: Session) -> Iterable[Metric]:
    live = (
        select(Job.kind, Job.state, func.count(Job.seq))
        .where(Job.kind.in_(list(JobKind)), Job.state.in_(LIVE_STATES))
        .group_by(Job.kind, Job.state)
    )
    return (Metric("jobs", {"kind": kind, "state": state}, number) for kind, state, number in session.execute(live))


def _waiting(session: Session) -> Iterable[Metric]:
    """Yield the jobs that only wait for a free worker: the numbers to size worker pools by."""
    waiting = {kind: (number, age) for kind, number, age in session.execute(_due())}
    for kind, task in TASKS.items():
        number, age = waiting.get(kind, (0, 0))
        yield Metric("jobs_waiting", {"queue": task.queue}, number)
        yield Metric("jobs_waiting_oldest_seconds", {"queue": task.queue}, max(0, age) / 1000)


@cache
def _due() -> Select[tuple[JobKind, int, int]]:
    age = now_ms() - func.min(func.coalesce(Job.next_attempt_at, Job.created_at))
    return (
        select(Job.kind, func.count(Job.seq), age)
        .where(Job.kind.in_(list(TASKS)), Job.state == JobState.QUEUED, is_claimable())
        .group_by(Job.kind)
    )


def _pushes(session: Session, events: Counts) -> Iterable[Metric]:
    yield from (Metric("pushes", {"status": state}, number) for state, number in count_pushes(session, events).items())
    missing = (
        select(func.count(ImagePush.seq))
        .join(Registry, Registry.id == ImagePush.registry_id)
        .where(ImagePush.missing_at.is_not(None), Registry.deleted_at.is_(None))
    )
    yield Metric("pushes_missing", {}, session.scalar(missing) or 0)


def _history(events: Counts) -> Iterable[Metric]:
    of_kind = Counter[str]()
    for (kind, state), number in events.items():
        of_kind[kind] += number
        if kind == "ended":
            yield Metric("push_results_total", {"status": state}, number)
    if of_kind["retry"]:
        yield Metric("push_retries_total", {}, of_kind["retry"])
    for kind in ("unclaimed", "lost", "no-progress"):
        yield Metric("pushes_stalled_total", {"kind": kind}, of_kind[f"{STALLED}{kind}"])


def _workers(session: Session) -> Iterable[Metric]:
    counted = {(queue, ready): 0 for queue in Queues.ALL for ready in ("yes", "no")}
    for worker in live_workers(session):
        for queue in filter(None, worker.queues.split(",")):
            counted[queue, "no" if worker.problem else "yes"] += 1
    yield from (
        Metric("workers", {"queue": queue, "ready": ready}, number) for (queue, ready), number in counted.items()
    )


def _registries(session: Session) -> Iterable[Metric]:
    for registry in session.scalars(select(Registry).where(Registry.deleted_at.is_(None))):
        about = {"registry_id": registry.id}
        for cause in PauseCause:
            yield Metric("registry_paused", {**about, "cause": cause}, int(registry.paused_by == cause))
        yield Metric("registry_failures_in_a_row", about, registry.failures)
