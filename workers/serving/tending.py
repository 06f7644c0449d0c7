"""Tending what runs: the dead are told of, the idle and the outdated end, what nobody knows is removed.

It can run twice at once, or not at all for a while: every step repeats the state that it was seen in.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.database import database
from shared.errors import WorkError
from shared.marks import TENDING, done_within, mark_done
from shared.models import Algorithm, Serving, ServingState, Version
from shared.servings.states import begin_draining, mark_stopped, running_servings
from shared.settings import settings
from workers.serving.backend import Observed
from workers.serving.chosen import backend
from workers.serving.health import ask_health
from workers.serving.outdated import why_outdated

log = structlog.get_logger(__name__)

STOPPED_AT_ONCE = 8
LONGEST_CALL_MS = 3_060_000
"""A call may take 3000 seconds; what still runs after that is none."""


def tend_on_tick() -> None:
    """Tend, unless somebody just did: of ticks that piled up one is enough."""
    with database().reading() as session:
        tended = done_within(session, TENDING, settings().sweep_seconds / 2)
    if not tended:
        tend()
        with database().writing() as session:
            mark_done(session, TENDING)


def tend() -> None:
    """Bring the rows to what is, and what is to the rows."""
    with database().reading() as session:
        running = running_servings(session)
        outdated = _outdated(session, running)
        now = session.scalars(select(now_ms())).one()
    started = [serving for serving in running if serving.state != ServingState.WANTED]
    try:
        observed = backend().observe(started)
        for serving in started:
            _tend_one(serving, observed, outdated.get(serving.id), now)
        with database().reading() as session:
            known = {serving.id for serving in running_servings(session)}
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
        running = [serving for serving in running_servings(session) if serving.state != ServingState.WANTED]
    with ThreadPoolExecutor(STOPPED_AT_ONCE, thread_name_prefix="stop") as pool:
        for ended in [pool.submit(_stop, serving, "Longshore was stopped.") for serving in running]:
            ended.result()


def _outdated(session: Session, running: Sequence[Serving]) -> Mapping[str, str]:
    """Why servings that take calls are not what a call would want now, by their ids."""
    outdated = {}
    for serving in running:
        if serving.state == ServingState.READY:
            why = why_outdated(session, serving)
            if why is not None:
                outdated[serving.id] = why
    return outdated


def _tend_one(serving: Serving, observed: Mapping[str, Observed], outdated: str | None, now: int) -> None:
    seen = observed.get(serving.id, Observed(alive=False, why="It is gone."))
    if not seen.alive:
        log.warning("what ran has ended", serving_id=serving.id, why=seen.why)
        _stop(serving, seen.why)
        return
    health = ask_health(serving.endpoint or "")
    if serving.state == ServingState.DRAINING:
        if (health is not None and not health.calls) or now - (serving.draining_at or 0) > LONGEST_CALL_MS:
            _stop(serving, serving.message)
    elif outdated is not None:
        _drain(serving, outdated)
    elif health is not None and (health.idle_seconds or 0) > settings().serving_idle_seconds:
        # It ends at the next look: a call that has read this row a moment ago still finds it.
        _drain(serving, f"Nobody called it for {settings().serving_idle_seconds:g} seconds.")


def _drain(serving: Serving, why: str) -> None:
    with database().writing() as session:
        draining = begin_draining(session, serving.id, why)
    if draining:
        log.info("draining", serving_id=serving.id, why=why)


def _stop(serving: Serving, why: str) -> None:
    # The row first: no call is to go where nobody answers. What was not stopped then is cleared away later.
    with database().writing() as session:
        stopped = mark_stopped(session, serving.id, why)
    if stopped:
        backend().stop(serving)
        log.info("stopped serving", serving_id=serving.id, why=why)
