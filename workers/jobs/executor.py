"""Running one job: claim it, keep the lease, do the work outside of any transaction, end it behind the fence."""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.fence import Claim, lock_claimed
from shared.jobs.claims import claim_job
from shared.jobs.dispatch import JobMessage
from shared.jobs.fair_queue import next_pushes
from shared.jobs.leases import release_lock
from shared.jobs.transitions import fail_or_retry, succeed
from shared.settings import settings
from workers.images.collect_garbage import collect_if_full
from workers.jobs import dispatch, registry_feedback
from workers.jobs.db_retry import retry_db_write
from workers.jobs.heartbeat import Heartbeat
from workers.jobs.worker_id import lease_owner

log = structlog.get_logger(__name__)

Finish = Callable[[Session], None]
"""Writes what the work made; runs in the transaction that ends the job."""


class Work(Protocol):
    """One kind of work on a claimed job."""

    def write(self, session: Session) -> None:
        """Write down what has moved since the last call; from the lease's thread."""

    def do(self, keeper: Heartbeat) -> Finish:
        """Do the work; returns what to write when the job ends well."""


def run_job(job_id: str, work_for: Callable[[Claim], Work]) -> bool:
    """Do a job if it is due and free, and say whether it was; a message for any other is no news."""
    claim = claim_job(database(), job_id, owner=lease_owner(), lease_seconds=settings().lease_seconds)
    if claim is None:
        return False
    with structlog.contextvars.bound_contextvars(job_id=job_id, claim=claim.number):
        try:
            dispatch.send(_work_on(claim, work_for(claim)))
        finally:
            # Whatever a job is and however it ends, it may have filled the store, or met a full one; and what it made
            # is known to be waited for only now that its end is written.
            collect_if_full()
    return True


def run_next_push(dispatched_id: str, work_for: Callable[[Claim], Work]) -> None:
    """Do the push whose turn it is, if there is one: not always the one that the message names."""
    tried = list[str]()
    while turns := _turns(dispatched_id, tried):
        for job_id in turns:
            if run_job(job_id, work_for):
                return
        tried += turns


def _turns(job_id: str, tried: Sequence[str]) -> list[str]:
    with database().reading() as session:
        return next_pushes(session, job_id, tried)


def _work_on(claim: Claim, work: Work) -> list[JobMessage]:
    try:
        with Heartbeat(database(), claim, settings(), work.write) as keeper:
            finish = work.do(keeper)
        following = retry_db_write(lambda: _end_well(claim, work, finish))
    except WorkCancelledError as stopped:
        log.info("stopped", reason=str(stopped))
        return _let_go(claim)
    except WorkError as error:
        log.info("not done", error_class=error.error_class, error=error.message)
        return _end_badly(claim, work, error)
    except SoftTimeLimitExceeded:
        message = f"It was not done within the time limit of a task ({settings().build_seconds} s for the build)."
        return _end_badly(claim, work, WorkError(ErrorClass.TRANSIENT, message))
    except Exception as error:
        log.exception("unexpected error")
        message = f"Something went wrong in the worker ({type(error).__name__}); its log says more."
        return _end_badly(claim, work, WorkError(ErrorClass.TRANSIENT, message))
    registry_feedback.record_success(claim)
    log.info("done")
    return following


def _end_well(claim: Claim, work: Work, finish: Finish) -> list[JobMessage]:
    with database().writing() as session:
        lock_claimed(session, claim)
        work.write(session)
        finish(session)
        return succeed(session, claim, locked=True)


def _end_badly(claim: Claim, work: Work, error: WorkError) -> list[JobMessage]:
    # First what it says of the registry: whether this job fails or waits goes by that.
    registry_feedback.record_error(claim, error)
    try:
        return retry_db_write(lambda: _write_error(claim, work, error))
    except WorkCancelledError:
        return _let_go(claim)


def _write_error(claim: Claim, work: Work, error: WorkError) -> list[JobMessage]:
    with database().writing() as session:
        lock_claimed(session, claim)
        work.write(session)
        return fail_or_retry(
            session,
            claim,
            error,
            delays=settings().retry_delays,
            unavailable_delay=settings().unavailable_delay_seconds,
        )


def _let_go(claim: Claim) -> list[JobMessage]:
    def release() -> list[JobMessage]:
        with database().writing() as session:
            return release_lock(session, claim)

    return retry_db_write(release)
