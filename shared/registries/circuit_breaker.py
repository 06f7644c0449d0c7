"""A circuit breaker for each registry: closed (pushes go there), throttled, or paused (open).

It counts failures that concern every push to the registry. A refusal of credentials that a push has of its own, given
for it or those of a default, does not count. An unreachable registry counts, whatever the credentials.
"""

import random
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, case, or_, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.engine import Database
from shared.db.models import PauseCause, Registry
from shared.errors import ErrorClass, WorkError
from shared.webhooks.events import EventType, emit_registry

DEFAULT_PAUSE_REASON = "No reason was given."
PROBE_JITTER = 0.1
FIRST_THROTTLE_SECONDS = 5
MAX_THROTTLE_SECONDS = 900
MAX_THROTTLES = 10

_CLOSED: dict[str, Any] = {
    "paused_at": None,
    "paused_by": None,
    "pause_reason": None,
    "failures": 0,
    "probe_at": None,
    "probes": 0,
    "throttled_until": None,
    "throttles": 0,
}
"""The columns of a registry whose circuit breaker is closed."""
_STATE = select(*(getattr(Registry, name) for name in _CLOSED)).where(Registry.id == bindparam("registry"))
_REGISTRY_FOR_UPDATE = (
    select(Registry)
    .where(Registry.id == bindparam("registry"), Registry.deleted_at.is_(None))
    .with_for_update()
    .execution_options(populate_existing=True)
)


def pause_cause(error: WorkError, *, own_credentials: bool) -> PauseCause | None:
    """Return the cause for which this error to the first request of a push counts against the registry; None if not.

    `own_credentials`: the push has credentials of its own, so a refusal concerns its caller only.
    """
    if error.error_class == ErrorClass.TRANSIENT:
        return PauseCause.UNREACHABLE
    if error.error_class == ErrorClass.AUTH and not own_credentials:
        return PauseCause.AUTH
    return None


def record_failure(
    session: Session,
    registry_id: str,
    cause: PauseCause,
    reason: str,
    *,
    pause_after: int,
    probe_delays: Sequence[float],
) -> bool:
    """Count a failure, and pause the registry after `pause_after` of them. Return whether this paused it.

    If it is paused already, a probe has failed, and the next one is after the next of `probe_delays` (seconds).
    """
    registry = _lock(session, registry_id)
    if registry is None or registry.paused_by == PauseCause.OPERATOR:
        return False
    was_running = registry.paused_at is None
    if was_running and registry.failures + 1 < pause_after:
        _write(session, registry, failures=registry.failures + 1)
        return False
    probes = 0 if was_running else registry.probes + 1
    delay = probe_delays[min(probes, len(probe_delays) - 1)]
    _write(
        session,
        registry,
        failures=registry.failures + 1,
        paused_at=registry.paused_at or now_ms(),
        paused_by=cause,
        pause_reason=reason,
        probes=probes,
        probe_at=now_ms() + int(delay * (1 + random.random() * PROBE_JITTER) * 1000),  # noqa: S311 - no secret
    )
    if was_running:
        emit_registry(session, registry, EventType.REGISTRY_PAUSED, reason)
    return was_running


def record_throttle(session: Session, registry_id: str, retry_after: float | None) -> None:
    """Throttle a registry that answered 429: no push starts for `retry_after` seconds, else longer each time.

    After that one push at a time starts, until one succeeds.
    """
    registry = _lock(session, registry_id)
    if registry is None:
        return
    delay = min(MAX_THROTTLE_SECONDS, FIRST_THROTTLE_SECONDS * 2**registry.throttles)
    until = now_ms() + int(1000 * (delay if retry_after is None else retry_after))
    # Another push may have recorded a later time.
    later = case((Registry.throttled_until > until, Registry.throttled_until), else_=until)
    _write(session, registry, throttles=min(registry.throttles + 1, MAX_THROTTLES), throttled_until=later)


def record_success(session: Session, registry_id: str, *, own_credentials: bool) -> bool:
    """Close the circuit breaker after a successful push, unless an operator paused it. Return whether a pause ended.

    A push with credentials of its own proves nothing about the registry's own credentials.
    """
    registry = _lock(session, registry_id)
    if registry is None or is_closed(registry) or registry.paused_by == PauseCause.OPERATOR:
        return False
    if registry.paused_by == PauseCause.AUTH and own_credentials:
        return False
    return _close(session, registry, "A push succeeded.")


def is_closed(registry: Registry | Row[Any]) -> bool:
    """Return whether pushes go to the registry without any restriction."""
    return all(getattr(registry, name) == value for name, value in _CLOSED.items())


def is_known_closed(database: Database, registry_id: str) -> bool:
    """Return whether the circuit breaker is closed, without a transaction: it usually is."""
    return all(is_closed(row) for row in database.ask(_STATE, registry=registry_id))


def pause(session: Session, registry: Registry, reason: str) -> bool:
    """Pause a registry until an operator resumes it; running pushes continue. Return whether this changed anything."""
    if registry.paused_by == PauseCause.OPERATOR:
        return False
    _write(
        session,
        registry,
        paused_at=now_ms(),
        paused_by=PauseCause.OPERATOR,
        pause_reason=reason,
        probe_at=None,
    )
    emit_registry(session, registry, EventType.REGISTRY_PAUSED, reason)
    return True


def resume(session: Session, registry: Registry) -> bool:
    """Close the circuit breaker, whatever opened it. Return whether this changed anything."""
    if is_closed(registry):
        return False
    _close(session, registry, "It was resumed, or changed.")
    return True


def reserve_probe(session: Session, registry_id: str, *, own_credentials: bool, hold_seconds: float) -> None:
    """Make a claimed push the probe of its registry, if that is paused: there is no other probe for `hold_seconds`."""
    is_probed = Registry.paused_by == PauseCause.UNREACHABLE
    if not own_credentials:
        is_probed = or_(is_probed, Registry.paused_by == PauseCause.AUTH)
    session.execute(
        update(Registry)
        .where(Registry.id == registry_id, is_probed)
        .values(probe_at=now_ms() + int(hold_seconds * 1000), updated_at=Registry.updated_at)
        .execution_options(synchronize_session=False)
    )


def waiting_reason(registry: Registry, *, own_credentials: bool) -> str | None:
    """Return a sentence that says why a queued push to this registry does not start; None: not due to the registry."""
    if registry.paused_by == PauseCause.OPERATOR:
        return (
            f"The registry is paused by an operator since {rfc3339(registry.paused_at)}: {registry.pause_reason} "
            "The push starts when the registry is resumed."
        )
    if registry.paused_at is not None and not (registry.paused_by == PauseCause.AUTH and own_credentials):
        return (
            f"The registry is paused since {rfc3339(registry.paused_at)}, after {registry.failures} failures in a row: "
            f"{registry.pause_reason} One push tries it again at {rfc3339(registry.probe_at)}; the others wait."
        )
    # The clock of this process is good enough for a message.
    if registry.throttled_until is not None and registry.throttled_until > time.time() * 1000:
        return f"The registry asked to slow down; pushes to it start again at {rfc3339(registry.throttled_until)}."
    return None


def _close(session: Session, registry: Registry, reason: str) -> bool:
    """Close the circuit breaker. Return whether the registry was paused."""
    was_paused = registry.paused_at is not None
    _write(session, registry, **_CLOSED)
    if was_paused:
        emit_registry(session, registry, EventType.REGISTRY_RESUMED, reason)
    return was_paused


def _lock(session: Session, registry_id: str) -> Registry | None:
    return session.scalar(_REGISTRY_FOR_UPDATE, {"registry": registry_id})


def _write(session: Session, registry: Registry, **values: Any) -> None:
    # `updated_at` is when an administrator changed the registry, so it is kept.
    session.execute(
        update(Registry)
        .where(Registry.id == registry.id)
        .values(**values, updated_at=Registry.updated_at)
        .execution_options(synchronize_session=False)
    )
    session.refresh(registry)
