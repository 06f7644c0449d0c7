"""Record for all pushes what one of them found out about its registry.

Each note is a transaction of its own, and best effort: if it is lost, the next push finds the same.
"""

import structlog
from sqlalchemy.exc import DBAPIError

from shared.db.engine import database
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim
from shared.registries import circuit_breaker
from shared.settings import settings

log = structlog.get_logger(__name__)


def record_success(claim: Claim) -> None:
    """Close the circuit breaker of the registry if it is open."""
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


def record_error(claim: Claim, error: WorkError) -> None:
    """Record an error that concerns all pushes to the registry: a throttle, or a failure of its first response."""
    if claim.registry_id is None:
        return
    try:
        if error.error_class == ErrorClass.THROTTLED and error.at_registry:
            with database().writing() as session:
                circuit_breaker.record_throttle(session, claim.registry_id, error.retry_after)
        elif error.first_response:
            _record_failure(claim, claim.registry_id, error)
    except DBAPIError as db_error:
        log.warning("registry_error_not_recorded", error=type(db_error).__name__)


def _record_failure(claim: Claim, registry_id: str, error: WorkError) -> None:
    cause = circuit_breaker.pause_cause(error, own_credentials=claim.own_credentials)
    if cause is None:
        return
    with database().writing() as session:
        paused = circuit_breaker.record_failure(
            session,
            registry_id,
            cause,
            error.message,
            pause_after=settings().pause_after_failures,
            probe_delays=settings().probe_delays,
        )
    if paused:
        log.warning("registry_paused", registry_id=registry_id, cause=cause, reason=error.message)
