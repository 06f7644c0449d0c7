"""Drift checks: ask registries, a few at a time, whether they still have the images that executions pull."""

from itertools import groupby

import structlog

from shared.commands.repush import repair_push
from shared.db.engine import database
from shared.errors import ErrorClass, WorkError
from shared.jobs.worker_processes import DRIFT, ran_within, record_run
from shared.pulls.resolution import is_address_unchanged
from shared.pushes.drift import DriftCheck, mark_missing, mark_seen, retry_checks_soon, take_due_checks
from shared.registries.access import address_of, client_of
from shared.registries.circuit_breaker import record_throttle
from shared.registries.credentials import CredentialsError, credential_provider
from shared.registry.client import RegistryClient
from shared.registry.reference import repository_path
from shared.settings import settings
from workers.jobs import dispatch

log = structlog.get_logger(__name__)

MAX_CHECKS_PER_TICK = 20
"""Registries limit the number of such requests."""
TEMPORARY_ERRORS = (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE)


def check_drift_on_tick() -> None:
    if not settings().drift_seconds:
        return
    with database().reading() as session:
        ran_recently = ran_within(session, DRIFT, settings().drift_tick_seconds / 2)
    if not ran_recently:
        check_drift()
        with database().writing() as session:
            record_run(session, DRIFT)


def check_drift() -> None:
    """Do the checks that are due; mark missing images, and push them again if that is enabled."""
    with database().writing() as session:
        due = take_due_checks(session, after_seconds=settings().drift_seconds, limit=MAX_CHECKS_PER_TICK)
    due.sort(key=lambda check: check.registry.id)
    for _registry_id, checks in groupby(due, key=lambda check: check.registry.id):
        _check_registry(list(checks))


def _check_registry(checks: list[DriftCheck]) -> None:
    """Do the checks of one registry until it refuses a request or fails."""
    registry = checks[0].registry
    try:
        with client_of(registry, credential_provider(registry).for_reading()) as client:
            client.ping()  # a 404 from something that is no registry, or that refuses us, proves nothing
            while checks:
                check = checks[0]
                if is_address_unchanged(check.algorithm, check.push, check.registry):
                    _write_result(check, is_there=_is_there(client, check))
                checks.pop(0)
    except CredentialsError as error:
        log.warning("drift_check_skipped", registry_id=registry.id, error=error.message)
    except WorkError as error:
        log.info("drift_check_failed", registry_id=registry.id, error_class=error.error_class, error=error.message)
        with database().writing() as session:
            if error.error_class == ErrorClass.THROTTLED:
                record_throttle(session, registry.id, error.retry_after)
            if error.error_class in TEMPORARY_ERRORS:
                retry_checks_soon(session, checks, after_seconds=settings().drift_seconds)


def _is_there(client: RegistryClient, check: DriftCheck) -> bool:
    """Return whether the registry has the image.

    Raises:
        WorkError: the registry failed, or may hide the repository from us only.
    """
    path = repository_path(address_of(check.registry), check.algorithm.owner, check.algorithm.name)
    if client.manifest_digest(path, check.digest) is not None:
        return True
    refusal = client.pull_refusal(path)
    if refusal is not None:
        raise refusal
    return False


def _write_result(check: DriftCheck, *, is_there: bool) -> None:
    with database().writing() as session:
        has_changed = mark_seen(session, check) if is_there else mark_missing(session, check)
    fields = {"push_id": check.push.id, "registry_id": check.registry.id, "digest": check.digest}
    if has_changed and is_there:
        log.info("missing_image_found", **fields)
    elif has_changed:
        log.warning("image_missing", **fields)
    if is_there or not settings().repair_missing:
        return
    with database().writing() as session:
        repaired = repair_push(session, check.push.id, check.digest)
    if isinstance(repaired, str):
        log.warning("missing_image_not_pushed_again", push_id=check.push.id, reason=repaired)
    else:
        log.info("missing_image_pushed_again", push_id=check.push.id, job_id=repaired.job.id)
        dispatch.send(repaired.messages)
