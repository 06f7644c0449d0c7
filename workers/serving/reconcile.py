"""Tending what runs: the dead are told of, the idle and the outdated end, what nobody knows is removed.

It can run twice at once, or not at all for a while: every step repeats the state that it was seen in.

Whether a serving still is what its version's callers are to be served by.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.algorithms import with_version
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.errors import WorkError
from shared.instances.desired import DesiredState
from shared.instances.states import begin_draining, mark_stopped, running_instances
from shared.jobs.worker_processes import RECONCILE, ran_within, record_run
from shared.pulls.resolution import resolve_pull
from shared.settings import settings
from workers.serving.backend import Observed
from workers.serving.factory import backend
from workers.serving.health import ask_health

log = structlog.get_logger(__name__)

STOPPED_AT_ONCE = 8
MAX_CALL_MS = 3_060_000
"""A call may take 3000 seconds; what still runs after that is none."""


def reconcile_on_tick() -> None:
    """Tend, unless somebody just did: of ticks that piled up one is enough."""
    with database().reading() as session:
        tended = ran_within(session, RECONCILE, settings().sweep_seconds / 2)
    if not tended:
        reconcile()
        with database().writing() as session:
            record_run(session, RECONCILE)


def reconcile() -> None:
    """Bring the rows to what is, and what is to the rows."""
    with database().reading() as session:
        running = running_instances(session)
        outdated = _outdated(session, running)
        now = session.scalars(select(now_ms())).one()
    started = [instance for instance in running if instance.state != InstanceState.PENDING]
    try:
        observed = backend().observe(started)
        for instance in started:
            _reconcile_instance(instance, observed, outdated.get(instance.id), now)
        with database().reading() as session:
            known = {instance.id for instance in running_instances(session)}
        backend().clear(known, _existing)
    except WorkError as error:
        log.warning("what runs cannot be tended", error=error.message)


def _existing(versions: Collection[str]) -> Collection[str]:
    """Those of these versions that are still there."""
    with database().reading() as session:
        return set(
            session.scalars(
                select(Version.id)
                .join(Algorithm, Algorithm.id == Version.algorithm_id)
                .where(Version.id.in_(versions), Algorithm.deleted_at.is_(None))
            )
        )


def stop_all() -> None:
    """End everything that runs, at the end of the last worker on this machine."""
    with database().reading() as session:
        running = [instance for instance in running_instances(session) if instance.state != InstanceState.PENDING]
    with ThreadPoolExecutor(STOPPED_AT_ONCE, thread_name_prefix="stop") as pool:
        for ended in [pool.submit(_stop, instance, "Longshore was stopped.") for instance in running]:
            ended.result()


def _outdated(session: Session, running: Sequence[Instance]) -> Mapping[str, str]:
    """Why servings that take calls are not what a call would want now, by their ids."""
    outdated = {}
    for instance in running:
        if instance.state == InstanceState.READY:
            why = why_outdated(session, instance)
            if why is not None:
                outdated[instance.id] = why
    return outdated


def _reconcile_instance(instance: Instance, observed: Mapping[str, Observed], outdated: str | None, now: int) -> None:
    seen = observed.get(instance.id, Observed(alive=False, why="It is gone."))
    if not seen.alive:
        log.warning("what ran has ended", instance_id=instance.id, why=seen.why)
        _stop(instance, seen.why)
        return
    health = ask_health(instance.endpoint or "")
    if instance.state == InstanceState.DRAINING:
        if (health is not None and not health.calls) or now - (instance.draining_at or 0) > MAX_CALL_MS:
            _stop(instance, instance.message)
    elif outdated is not None:
        _drain(instance, outdated)
    elif health is not None and (health.idle_seconds or 0) > settings().serving_idle_seconds:
        # It ends at the next look: a call that has read this row a moment ago still finds it.
        _drain(instance, f"Nobody called it for {settings().serving_idle_seconds:g} seconds.")


def _drain(instance: Instance, why: str) -> None:
    with database().writing() as session:
        draining = begin_draining(session, instance.id, why)
    if draining:
        log.info("draining", instance_id=instance.id, why=why)


def _stop(instance: Instance, why: str) -> None:
    # The row first: no call is to go where nobody answers. What was not stopped then is cleared away later.
    with database().writing() as session:
        stopped = mark_stopped(session, instance.id, why)
    if stopped:
        backend().stop(instance)
        log.info("stopped serving", instance_id=instance.id, why=why)


def why_outdated(session: Session, instance: Instance) -> str | None:
    """Why a call would want another one now, in a sentence; None: it would want this one."""
    found = with_version(session, instance.version_id)
    if found is None:
        return "The algorithm was deleted."
    algorithm, version = found
    wanted = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
    if wanted is None:
        return "The image cannot be pulled from anywhere any more."
    if wanted.image != instance.image:
        return "Calls go to another image now."
    if wanted.network != instance.network:
        return "The algorithm's network access was changed."
    return None
