"""Run one job: claim it, keep the lease, do the work outside of any transaction, and end the job behind its fence."""

from collections.abc import Callable
from typing import Protocol

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.fence import Claim, lock_claimed
from shared.jobs.claims import claim_job
from shared.jobs.dispatch import JobMessage
from shared.jobs.fair_queue import next_pushes
from shared.jobs.leases import release_lock
from shared.jobs.transitions import fail_or_retry, succeed
from shared.registries import circuit_breaker
from shared.settings import settings
from workers.images.factory import collect_if_full
from workers.jobs import dispatch
from workers.jobs.db_retry import retry_db_write
from workers.jobs.heartbeat import Heartbeat
from workers.jobs.worker_id import lease_owner

log = structlog.get_logger(__name__)

Finish = Callable[[Session], None]
"""Writes the result of the work, in the transaction that ends the job."""


class Work(Protocol):
    """One kind of work on a claimed job."""

    def write(self, session: Session) -> None:
        """Write the progress since the last call. Called in the heartbeat's thread, and with the job's end."""

    def do(self, heartbeat: Heartbeat) -> Finish:
        """Do the work; return the function that writes its result."""


def run_job(job_id: str, work_for: Callable[[Claim], Work]) -> bool:
    """Run a job if it can be claimed, and return whether it could."""
    claim = claim_job(database(), job_id, owner=lease_owner(), lease_seconds=settings().lease_seconds)
    if claim is None:
        return False
    with structlog.contextvars.bound_contextvars(job_id=job_id, claim=claim.number):
        try:
            dispatch.send(_work_on(claim, work_for(claim)))
        finally:
            # A job of any kind, however it ended, may have filled the image store, or found it full. Whether later
            # jobs need the image that it made is known only now, when its end is written.
            collect_if_full()
    return True


def run_next_push(dispatched_id: str, work_for: Callable[[Claim], Work]) -> None:
    """Run the first due push of the fair queue that can be claimed; it need not be the one that the message names."""
    tried = list[str]()
    while True:
        with database().reading() as session:
            job_ids = next_pushes(session, dispatched_id, tried)
        if not job_ids or any(run_job(job_id, work_for) for job_id in job_ids):
            return
        tried += job_ids


def _work_on(claim: Claim, work: Work) -> list[JobMessage]:
    try:
        with Heartbeat(database(), claim, settings(), work.write) as heartbeat:
            finish = work.do(heartbeat)
        messages = retry_db_write(lambda session: _succeed(session, claim, work, finish))
    except WorkCancelledError as cancelled:
        log.info("job_cancelled", reason=str(cancelled))
        return _release(claim)
    except WorkError as error:
        log.info("job_failed", error_class=error.error_class, error=error.message)
        return _fail(claim, work, error)
    except SoftTimeLimitExceeded:
        message = f"It was not done within the time limit of a task ({settings().build_seconds} s for the build)."
        return _fail(claim, work, WorkError(ErrorClass.TRANSIENT, message))
    except Exception as error:
        log.exception("job_failed_unexpectedly")
        message = f"Something went wrong in the worker ({type(error).__name__}); its log says more."
        return _fail(claim, work, WorkError(ErrorClass.TRANSIENT, message))
    record_registry_success(claim)
    log.info("job_succeeded")
    return messages


def _succeed(session: Session, claim: Claim, work: Work, finish: Finish) -> list[JobMessage]:
    lock_claimed(session, claim)
    work.write(session)
    finish(session)
    return succeed(session, claim)


def _fail(claim: Claim, work: Work, error: WorkError) -> list[JobMessage]:
    # Before the job's end, because this may pause the registry, and then the job waits instead of failing.
    _record_registry_error(claim, error)
    try:
        return retry_db_write(lambda session: _write_error(session, claim, work, error))
    except WorkCancelledError:
        return _release(claim)


def _write_error(session: Session, claim: Claim, work: Work, error: WorkError) -> list[JobMessage]:
    lock_claimed(session, claim)
    work.write(session)
    return fail_or_retry(
        session, claim, error, delays=settings().retry_delays, unavailable_delay=settings().unavailable_delay_seconds
    )


def _release(claim: Claim) -> list[JobMessage]:
    return retry_db_write(lambda session: release_lock(session, claim))


def record_registry_success(claim: Claim) -> None:
    """Tell all pushes that the registry takes pushes: close its circuit breaker if it is open.

    Best effort, in a transaction of its own: if it is lost, the next push finds the same.
    """
    if claim.registry_id is None:
        return
    try:
        if circuit_breaker.is_known_closed(database(), claim.registry_id):
            return
        with database().writing() as session:
            resumed = circuit_breaker.record_success(session, claim.registry_id, own_credentials=claim.own_credentials)
        if resumed:
            log.info("registry_resumed", registry_id=claim.registry_id)
    except DBAPIError as error:
        log.warning("registry_success_not_recorded", error=type(error).__name__)


def _record_registry_error(claim: Claim, error: WorkError) -> None:
    """Record an error that concerns all pushes to the registry: a throttle, or a failure of its first response.

    Best effort, as `record_registry_success`.
    """
    if claim.registry_id is None:
        return
    try:
        if error.error_class == ErrorClass.THROTTLED and error.at_registry:
            if claim.own_credentials:  # their limit may be reached, and not that of others
                return
            with database().writing() as session:
                circuit_breaker.record_throttle(session, claim.registry_id, error.retry_after)
        elif error.first_response:
            cause = circuit_breaker.pause_cause(error, own_credentials=claim.own_credentials)
            if cause is not None:
                with database().writing() as session:
                    paused = circuit_breaker.record_failure(
                        session,
                        claim.registry_id,
                        cause,
                        error.message,
                        pause_after=settings().pause_after_failures,
                        probe_delays=settings().probe_delays,
                    )
                if paused:
                    log.warning("registry_paused", registry_id=claim.registry_id, cause=cause, reason=error.message)
    except DBAPIError as db_error:
        log.warning("registry_error_not_recorded", error=type(db_error).__name__)
