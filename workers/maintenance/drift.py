"""Looking whether registries still have what executions rely on: gently, and sure before it is said."""

from itertools import groupby

import structlog

from shared.commands.repush import repair_push
from shared.db.engine import database
from shared.errors import ErrorClass, WorkError
from shared.jobs.dispatch import JobMessage
from shared.jobs.worker_processes import DRIFT, ran_within, record_run
from shared.pulls.resolution import is_address_unchanged
from shared.pushes.drift import Look, look_again_soon, mark_missing, mark_seen, take_due
from shared.registries.circuit_breaker import record_throttle
from shared.registries.client import address_of, client_of
from shared.registries.credentials import CredentialsError, credential_provider
from shared.registry.client import RegistryClient
from shared.registry.reference import repository_path
from shared.settings import settings
from workers.jobs import dispatch

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 20
"""So many images are asked for at a tick: registries count such questions against limits of their own."""
MAY_ANSWER_SOON = (ErrorClass.TRANSIENT, ErrorClass.THROTTLED, ErrorClass.UNAVAILABLE)


def look_for_drift_on_tick() -> None:
    """Look, unless somebody just did, or nobody wants it."""
    if not settings().drift_seconds:
        return
    with database().reading() as session:
        looked = ran_within(session, DRIFT, settings().drift_tick_seconds / 2)
    if not looked:
        look_for_drift()
        with database().writing() as session:
            record_run(session, DRIFT)


def look_for_drift() -> None:
    """Ask registries for the digests that nobody asked for longest; mark what is gone, and have it pushed again."""
    with database().writing() as session:
        due = take_due(session, after_seconds=settings().drift_seconds, limit=MAX_AT_ONCE)
    due.sort(key=lambda look: look.registry.id)
    for _registry, looks in groupby(due, key=lambda look: look.registry.id):
        _look_at_one(list(looks))


def _look_at_one(looks: list[Look]) -> None:
    """Ask one registry, until it refuses or fails."""
    registry = looks[0].registry
    try:
        with client_of(registry, credential_provider(registry).for_reading()) as client:
            client.ping()  # a 404 of something that is no registry, or does not know us, says nothing
            while looks:
                _look(client, looks[0])
                looks.pop(0)
    except CredentialsError as error:
        log.warning("drift_not_checked", registry_id=registry.id, error_class=error.error_class, error=error.message)
    except WorkError as error:
        log.info("not looked for drift", registry_id=registry.id, error_class=error.error_class, error=error.message)
        with database().writing() as session:
            if error.error_class == ErrorClass.THROTTLED:
                record_throttle(session, registry.id, error.retry_after)
            if error.error_class in MAY_ANSWER_SOON:
                look_again_soon(session, looks, after_seconds=settings().drift_seconds)


def _look(client: RegistryClient, look: Look) -> None:
    if is_address_unchanged(look.algorithm, look.push, look.registry):
        _note(look, there=_is_there(client, look))


def _is_there(client: RegistryClient, look: Look) -> bool:
    """Whether the registry has it.

    Raises:
        WorkError: it does not say, or says so only because it shows the repository to others and not to us.
    """
    path = repository_path(address_of(look.registry), look.algorithm.owner, look.algorithm.name)
    if client.manifest_digest(path, look.digest) is not None:
        return True
    refusal = client.pull_refusal(path)
    if refusal is not None:
        raise refusal
    return False


def _note(look: Look, *, there: bool) -> None:
    with database().writing() as session:
        news = mark_seen(session, look) if there else mark_missing(session, look)
    about = {"push_id": look.push.id, "registry_id": look.registry.id, "digest": look.digest}
    if news and there:
        log.info("an image that was missing is there again", **about)
    elif news:
        log.warning("an image is gone from its registry", **about)
    if not there and settings().repair_missing:
        dispatch.send(_repair(look))


def _repair(look: Look) -> list[JobMessage]:
    with database().writing() as session:
        repaired = repair_push(session, look.push.id, look.digest)
    if isinstance(repaired, str):
        log.warning("not pushed again", push_id=look.push.id, reason=repaired)
        return []
    log.info("pushed again, since it was missing", push_id=look.push.id, job_id=repaired.job.id)
    return repaired.messages
