"""Reconcile instances: record those that ended, drain the idle and the outdated ones, and remove orphans.

It may run twice at the same time, or not at all for a while: each update repeats the state that it was decided on.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.algorithms import with_version
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.errors import WorkError
from shared.instances.states import DesiredState, begin_draining, mark_stopped, running_instances
from shared.jobs.worker_processes import RECONCILE, ran_within, record_run
from shared.pulls.resolution import resolve_pull
from shared.settings import settings
from workers.serving.backend import ObservedInstance, serving_backend
from workers.serving.health import read_health

log = structlog.get_logger(__name__)

MAX_PARALLEL_STOPS = 8
MAX_CALL_MS = 3_060_000
"""A call may take 3000 seconds; an instance that drains for longer has none in progress."""


def reconcile_on_tick() -> None:
    """Reconcile, unless it was done a moment ago: one run is enough for all ticks in the queue."""
    with database().reading() as session:
        if ran_within(session, RECONCILE, settings().sweep_seconds / 2):
            return
    reconcile()
    with database().writing() as session:
        record_run(session, RECONCILE)


def reconcile() -> None:
    with database().reading() as session:
        running = running_instances(session)
        outdated = {
            instance.id: why_outdated(session, instance)
            for instance in running
            if instance.state == InstanceState.READY
        }
        now = session.scalars(select(now_ms())).one()
    started = [instance for instance in running if instance.state != InstanceState.PENDING]
    try:
        observed = serving_backend().observe(started)
        for instance in started:
            _reconcile_instance(instance, observed, outdated.get(instance.id), now)
        with database().reading() as session:
            known = {instance.id for instance in running_instances(session)}
        serving_backend().remove_orphans(known, _existing_versions)
    except WorkError as error:
        log.warning("reconcile_failed", error=error.message)


def _existing_versions(versions: Collection[str]) -> Collection[str]:
    with database().reading() as session:
        return set(
            session.scalars(
                select(Version.id)
                .join(Algorithm, Algorithm.id == Version.algorithm_id)
                .where(Version.id.in_(versions), Algorithm.deleted_at.is_(None))
            )
        )


def stop_all() -> None:
    """End every instance, when the last worker on this machine ends."""
    with database().reading() as session:
        started = [instance for instance in running_instances(session) if instance.state != InstanceState.PENDING]
    with ThreadPoolExecutor(MAX_PARALLEL_STOPS, thread_name_prefix="stop") as pool:
        for stopped in [pool.submit(_stop, instance, "Longshore was stopped.") for instance in started]:
            stopped.result()


def _reconcile_instance(
    instance: Instance, observed: Mapping[str, ObservedInstance], outdated: str | None, now: int
) -> None:
    state = observed.get(instance.id, ObservedInstance(alive=False, reason="It is gone."))
    if not state.alive:
        log.warning("instance_ended", instance_id=instance.id, reason=state.reason)
        _stop(instance, state.reason)
        return
    health = read_health(instance.endpoint or "")
    if instance.state == InstanceState.DRAINING:
        if (health is not None and not health.calls) or now - (instance.draining_at or 0) > MAX_CALL_MS:
            _stop(instance, instance.message)
    elif outdated is not None:
        _drain(instance, outdated)
    elif health is not None and (health.idle_seconds or 0) > settings().serving_idle_seconds:
        # The next run ends it: a call that read this row a moment ago still finds the instance.
        _drain(instance, f"It had no call for {settings().serving_idle_seconds:g} seconds.")


def _drain(instance: Instance, reason: str) -> None:
    with database().writing() as session:
        draining = begin_draining(session, instance.id, reason)
    if draining:
        log.info("instance_draining", instance_id=instance.id, reason=reason)


def _stop(instance: Instance, reason: str) -> None:
    # The row first, so that no call goes to an instance that ends. If the stop fails, `remove_orphans` does it later.
    with database().writing() as session:
        stopped = mark_stopped(session, instance.id, reason)
    if stopped:
        serving_backend().stop(instance)
        log.info("instance_stopped", instance_id=instance.id, reason=reason)


def why_outdated(session: Session, instance: Instance) -> str | None:
    """Return the reason why calls need another instance than this one, in a sentence; None if it is up to date."""
    row = with_version(session, instance.version_id)
    if row is None:
        return "The algorithm was deleted."
    algorithm, version = row
    resolution = resolve_pull(session, algorithm, version)
    desired = DesiredState.of(algorithm, version, resolution)
    if desired is None:
        return f"Its image may not run any more. {resolution.reason}"
    if desired.image != instance.image:
        return "Calls go to another image now."
    if desired.network != instance.network:
        return "The algorithm's network access was changed."
    return None
