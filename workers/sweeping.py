"""The sweep: finds what fell through, by query. Harmless when it runs twice at once or not at all for a while."""

import structlog

from shared.calls.requests import clear_old_calls, lose_overdue
from shared.database import database
from shared.jobs.due import take_due_nudges
from shared.jobs.leases import lost_jobs
from shared.jobs.lost import free_abandoned_places, requeue_lost
from shared.jobs.nudges import Nudge, Queues
from shared.jobs.settling import settle_overdue
from shared.marks import RELEASE, SWEEP, done_within, mark_done
from shared.pushes.history import tally_events
from shared.pushes.stalls import report_still, report_unclaimed
from shared.refreshes.releasing import unreleased
from shared.settings import settings
from shared.workers import live_nodes
from workers import nudges

log = structlog.get_logger(__name__)

RELEASE_SECONDS = 15
"""A cluster that does not answer is asked no more often to let go of nodes."""
MOST_NUDGES = 200
"""At most this many nudges a sweep, so that a long queue does not flood Redis."""


def sweep_on_tick() -> None:
    """Sweep, unless one has just ended: of ticks that piled up, or of two beats, one is enough."""
    with database().reading() as session:
        swept = done_within(session, SWEEP, settings().sweep_seconds / 2)
    if not swept:
        sweep()


def sweep() -> None:
    """Requeue lost jobs, settle what waited for an ended job, nudge what is due, report stalled pushes."""
    following = _requeue_lost()
    with database().writing() as session:
        following += free_abandoned_places(session)
    with database().writing() as session:
        following += settle_overdue(session)
    with database().writing() as session:
        following += take_due_nudges(session, limit=MOST_NUDGES)
    nudges.send(following)
    _report_stalled()
    with database().writing() as session:
        lose_overdue(session)
        clear_old_calls(session, keep_days=settings().call_keep_days)
    _have_it_tended()
    _have_nodes_released()
    with database().writing() as session:
        tally_events(session)
        mark_done(session, SWEEP)


def _have_it_tended() -> None:
    """What runs is tended by the workers that run it. Where there are none, nobody would take the messages away."""
    with database().reading() as session:
        serving = any(Queues.SERVING in node.queues.split(",") for node in live_nodes(session))
    if serving:
        nudges.send_tick("longshore.tend", Queues.SERVING)


def _have_nodes_released() -> None:
    """What refreshes left cordoned that ended while their worker was dead; by a worker that reaches the cluster."""
    with database().reading() as session:
        if not unreleased(session) or done_within(session, RELEASE, RELEASE_SECONDS):
            return
        reached = any(Queues.NODES in node.queues.split(",") for node in live_nodes(session))
    if reached:
        nudges.send_tick("longshore.release", Queues.NODES)
        with database().writing() as session:
            mark_done(session, RELEASE)


def _requeue_lost() -> list[Nudge]:
    with database().reading() as session:
        lost = lost_jobs(session)
    following: list[Nudge] = []
    for job_id, claim in lost:
        with database().writing() as session:
            requeued = requeue_lost(session, job_id, claim=claim, max_losses=settings().max_losses)
        if requeued:
            log.warning("a worker was lost; its job is due again", job_id=job_id, claim=claim)
        following += requeued
    return following


def _report_stalled() -> None:
    with database().writing() as session:
        unclaimed = report_unclaimed(session, after_seconds=settings().stalled_unclaimed_seconds)
        still = report_still(session, after_seconds=settings().stalled_still_seconds)
    for push_id in unclaimed:
        log.warning("push stalled: nobody claims it, and no worker is alive", push_id=push_id)
    for push_id in still:
        log.warning("push stalled: no byte moves", push_id=push_id)
