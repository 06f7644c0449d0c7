"""The sweep: find by query what got lost. It may run twice concurrently, or not at all for a while, without harm."""

import structlog

from shared.db.engine import database
from shared.git.deliveries import delete_old_deliveries
from shared.invocation.async_calls import delete_old_calls, mark_overdue_lost
from shared.jobs.dependencies import resolve_overdue
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import take_due_messages
from shared.jobs.queues import Queues
from shared.jobs.stalls import lost_jobs, release_abandoned_locks, report_no_progress, report_unclaimed, requeue_lost
from shared.jobs.worker_processes import SWEEP, UNCORDON, live_workers, ran_within, record_run
from shared.pushes.queries import tally_events
from shared.refreshes import refreshes_to_uncordon
from shared.settings import settings
from workers.builds.load_check import skip_overdue
from workers.jobs import dispatch

log = structlog.get_logger(__name__)

UNCORDON_INTERVAL_SECONDS = 15
"""Minimum time between two requests to a cluster that does not respond."""
MAX_MESSAGES_PER_SWEEP = 200
"""Limit of messages per sweep, so that a long queue does not flood Redis."""


def sweep_on_tick() -> None:
    """Sweep unless a sweep has just run: of several queued ticks, or of two beats, one is enough."""
    with database().reading() as session:
        ran_recently = ran_within(session, SWEEP, settings().sweep_seconds / 2)
    if not ran_recently:
        sweep()


def sweep() -> None:
    """Requeue lost jobs, resolve the dependents of ended jobs, message due jobs, report stalled pushes."""
    messages = _requeue_lost()
    with database().writing() as session:
        messages += release_abandoned_locks(session)
    with database().writing() as session:
        messages += resolve_overdue(session)
    with database().writing() as session:
        messages += take_due_messages(session, limit=MAX_MESSAGES_PER_SWEEP)
    dispatch.send(messages)
    _report_stalled()
    with database().writing() as session:
        mark_overdue_lost(session)
        delete_old_calls(session, keep_days=settings().call_keep_days)
        delete_old_deliveries(session)
        skip_overdue(session)
    if _has_worker(Queues.SERVING):
        dispatch.send_periodic("longshore.reconcile", Queues.SERVING)
    _request_uncordon()
    with database().writing() as session:
        tally_events(session)
        record_run(session, SWEEP)


def _has_worker(queue: str) -> bool:
    """Return whether a live worker consumes the queue; without one, messages would pile up."""
    with database().reading() as session:
        return any(queue in worker.queues.split(",") for worker in live_workers(session))


def _request_uncordon() -> None:
    """Have a worker with access to the cluster uncordon nodes of refreshes that ended without their worker."""
    with database().reading() as session:
        if not refreshes_to_uncordon(session) or ran_within(session, UNCORDON, UNCORDON_INTERVAL_SECONDS):
            return
    if _has_worker(Queues.NODES):
        dispatch.send_periodic("longshore.uncordon", Queues.NODES)
        with database().writing() as session:
            record_run(session, UNCORDON)


def _requeue_lost() -> list[JobMessage]:
    with database().reading() as session:
        lost = lost_jobs(session)
    messages: list[JobMessage] = []
    for job_id, claim in lost:
        with database().writing() as session:
            requeued = requeue_lost(session, job_id, claim=claim, max_losses=settings().max_losses)
        if requeued:
            log.warning("job_requeued_after_lost_worker", job_id=job_id, claim=claim)
        messages += requeued
    return messages


def _report_stalled() -> None:
    with database().writing() as session:
        unclaimed = report_unclaimed(session, after_seconds=settings().stalled_unclaimed_seconds)
        no_progress = report_no_progress(session, after_seconds=settings().stalled_no_progress_seconds)
    for push_id in unclaimed:
        log.warning("push_stalled_unclaimed", push_id=push_id)
    for push_id in no_progress:
        log.warning("push_stalled_no_progress", push_id=push_id)
