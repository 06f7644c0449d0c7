"""The sweep: finds what fell through, by query. Harmless when it runs twice at once or not at all for a while."""

import structlog

from shared.db.engine import database
from shared.invocation.async_calls import clear_old_calls, lose_overdue
from shared.jobs.dependencies import resolve_overdue
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import take_due_messages
from shared.jobs.lost import lost_jobs, release_abandoned_locks, requeue_lost
from shared.jobs.queues import Queues
from shared.jobs.stalls import report_no_progress, report_unclaimed
from shared.jobs.worker_processes import SWEEP, UNCORDON, live_workers, ran_within, record_run
from shared.pushes.counters import tally_events
from shared.refreshes import refreshes_to_uncordon
from shared.settings import settings
from workers.jobs import dispatch

log = structlog.get_logger(__name__)

UNCORDON_INTERVAL_SECONDS = 15
"""A cluster that does not answer is asked no more often to let go of nodes."""
MAX_MESSAGES_PER_SWEEP = 200
"""At most this many messages a sweep, so that a long queue does not flood Redis."""


def sweep_on_tick() -> None:
    """Sweep, unless one has just ended: of ticks that piled up, or of two beats, one is enough."""
    with database().reading() as session:
        swept = ran_within(session, SWEEP, settings().sweep_seconds / 2)
    if not swept:
        sweep()


def sweep() -> None:
    """Requeue lost jobs, settle what waited for an ended job, message what is due, report stalled pushes."""
    following = _requeue_lost()
    with database().writing() as session:
        following += release_abandoned_locks(session)
    with database().writing() as session:
        following += resolve_overdue(session)
    with database().writing() as session:
        following += take_due_messages(session, limit=MAX_MESSAGES_PER_SWEEP)
    dispatch.send(following)
    _report_stalled()
    with database().writing() as session:
        lose_overdue(session)
        clear_old_calls(session, keep_days=settings().call_keep_days)
    _request_reconcile()
    _request_uncordon()
    with database().writing() as session:
        tally_events(session)
        record_run(session, SWEEP)


def _request_reconcile() -> None:
    """What runs is tended by the workers that run it. Where there are none, nobody would take the messages away."""
    with database().reading() as session:
        instance = any(Queues.SERVING in node.queues.split(",") for node in live_workers(session))
    if instance:
        dispatch.send_periodic("longshore.reconcile", Queues.SERVING)


def _request_uncordon() -> None:
    """What refreshes left cordoned that ended while their worker was dead; by a worker that reaches the cluster."""
    with database().reading() as session:
        if not refreshes_to_uncordon(session) or ran_within(session, UNCORDON, UNCORDON_INTERVAL_SECONDS):
            return
        reached = any(Queues.NODES in node.queues.split(",") for node in live_workers(session))
    if reached:
        dispatch.send_periodic("longshore.uncordon", Queues.NODES)
        with database().writing() as session:
            record_run(session, UNCORDON)


def _requeue_lost() -> list[JobMessage]:
    with database().reading() as session:
        lost = lost_jobs(session)
    following: list[JobMessage] = []
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
        still = report_no_progress(session, after_seconds=settings().stalled_no_progress_seconds)
    for push_id in unclaimed:
        log.warning("push stalled: nobody claims it, and no worker is alive", push_id=push_id)
    for push_id in still:
        log.warning("push stalled: no byte moves", push_id=push_id)
