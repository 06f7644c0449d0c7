"""How a registry takes pushes at the moment: open, slowed down because it asked for that, or paused.

What is written here concerns everybody who pushes there. A failure under credentials that were given for one push says
nothing of the registry's own; that a registry does not answer at all concerns everybody, whoever found out.
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

NO_REASON = "No reason was given."
"""What a pause says to which its operator gave none."""
JITTER = 0.1
FIRST_THROTTLE_SECONDS = 5
MAX_THROTTLE_SECONDS = 900
MAX_THROTTLES = 10

OPEN: dict[str, Any] = {
    "paused_at": None,
    "paused_by": None,
    "pause_reason": None,
    "failures": 0,
    "probe_at": None,
    "probes": 0,
    "throttled_until": None,
    "throttles": 0,
}
"""What the row of a registry says that takes pushes as fast as it may."""


def trouble_of(error: WorkError, *, own_credentials: bool) -> PauseCause | None:
    """What it says of the registry as a whole that it answered our first question with this error.

    `own_credentials`: the push brought some, so their refusal is its caller's business.
    """
    if error.error_class == ErrorClass.TRANSIENT:
        return PauseCause.UNREACHABLE
    if error.error_class == ErrorClass.AUTH and not own_credentials:
        return PauseCause.AUTH
    return None


def note_failure(
    session: Session,
    registry_id: str,
    cause: PauseCause,
    reason: str,
    *,
    pause_after: int,
    probe_delays: Sequence[float],
) -> bool:
    """Count a failure that concerns everybody; pause the registry when it was one too many.

    Where it is paused already, it was a probe that failed, and the next one comes later than the last did. Whether
    this paused it.
    """
    registry = _locked(session, registry_id)
    if registry is None or registry.paused_by == PauseCause.OPERATOR:
        return False
    newly = registry.paused_at is None
    if newly and registry.failures + 1 < pause_after:
        _write(session, registry, failures=registry.failures + 1)
        return False
    probes = 0 if newly else registry.probes + 1
    delay = probe_delays[min(probes, len(probe_delays) - 1)]
    _write(
        session,
        registry,
        failures=registry.failures + 1,
        paused_at=registry.paused_at or now_ms(),
        paused_by=cause,
        pause_reason=reason,
        probes=probes,
        probe_at=now_ms() + int(delay * (1 + random.random() * JITTER) * 1000),  # noqa: S311 - no secret
    )
    if newly:
        emit_registry(session, registry, EventType.REGISTRY_PAUSED, reason)
    return newly


def note_throttle(session: Session, registry_id: str, retry_after: float | None) -> None:
    """It asked to slow down (429): for as long as it says, else longer each time, nothing goes there.

    After that one push at a time, until one succeeds.
    """
    registry = _locked(session, registry_id)
    if registry is None:
        return
    grown = min(MAX_THROTTLE_SECONDS, FIRST_THROTTLE_SECONDS * 2**registry.throttles)
    until = now_ms() + int(1000 * (grown if retry_after is None else retry_after))
    # Another push may have been told of a longer wait.
    longer = case((Registry.throttled_until > until, Registry.throttled_until), else_=until)
    _write(session, registry, throttles=min(registry.throttles + 1, MAX_THROTTLES), throttled_until=longer)


def note_success(session: Session, registry_id: str, *, own_credentials: bool) -> bool:
    """A push went well: the registry is open again, unless an operator paused it. Whether a pause ended by this.

    A push with credentials of its own says nothing of the recorded ones.
    """
    registry = _locked(session, registry_id)
    if registry is None or is_open(registry) or registry.paused_by == PauseCause.OPERATOR:
        return False
    if registry.paused_by == PauseCause.AUTH and own_credentials:
        return False
    was_paused = registry.paused_at is not None
    _write(session, registry, **OPEN)
    if was_paused:
        emit_registry(session, registry, EventType.REGISTRY_RESUMED, "A push went well.")
    return was_paused


def is_open(registry: Registry | Row[Any]) -> bool:
    """Whether nothing is held against it."""
    return all(getattr(registry, name) == value for name, value in OPEN.items())


def is_known_open(database: Database, registry_id: str) -> bool:
    """Whether nothing is held against a registry, asked outside of any transaction: most of the time so it is."""
    return all(is_open(row) for row in database.ask(_HELD_AGAINST, registry=registry_id))


_HELD_AGAINST = select(*(getattr(Registry, name) for name in OPEN)).where(Registry.id == bindparam("registry"))


def pause(session: Session, registry: Registry, reason: str) -> bool:
    """Pause a registry until somebody resumes it; pushes that run go on. Whether it was not paused so already."""
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
    """Open a registry again, whoever paused it or however it asked to slow down. Whether it was not open."""
    if is_open(registry):
        return False
    was_paused = registry.paused_at is not None
    _write(session, registry, **OPEN)
    if was_paused:
        emit_registry(session, registry, EventType.REGISTRY_RESUMED, "It was resumed, or changed.")
    return True


def take_probe(session: Session, registry_id: str, *, own_credentials: bool, hold_seconds: float) -> None:
    """A push is claimed: where its registry is paused it is the probe, and for this long no other one is."""
    probed = Registry.paused_by == PauseCause.UNREACHABLE
    if not own_credentials:
        probed = or_(probed, Registry.paused_by == PauseCause.AUTH)
    session.execute(
        update(Registry)
        .where(Registry.id == registry_id, probed)
        .values(probe_at=now_ms() + int(hold_seconds * 1000), updated_at=Registry.updated_at)
        .execution_options(synchronize_session=False)
    )


def why_it_waits(registry: Registry, *, own_credentials: bool) -> str | None:
    """Why a queued push to this registry is not begun, in a sentence; None: not because of the registry."""
    if registry.paused_by == PauseCause.OPERATOR:
        return (
            f"The registry is paused by an operator since {rfc3339(registry.paused_at)}: {registry.pause_reason} "
            "It goes on when the registry is resumed."
        )
    if registry.paused_at is not None and not (registry.paused_by == PauseCause.AUTH and own_credentials):
        return (
            f"The registry is paused since {rfc3339(registry.paused_at)}, after {registry.failures} failures in a row: "
            f"{registry.pause_reason} One push tries it again at {rfc3339(registry.probe_at)}; the others wait."
        )
    # The clock of this process: only words depend on it.
    if registry.throttled_until is not None and registry.throttled_until > time.time() * 1000:
        return f"The registry asked to slow down; pushes to it go on at {rfc3339(registry.throttled_until)}."
    return None


def _locked(session: Session, registry_id: str) -> Registry | None:
    found: Registry | None = session.scalar(
        select(Registry)
        .where(Registry.id == registry_id, Registry.deleted_at.is_(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found


def _write(session: Session, registry: Registry, **values: Any) -> None:
    # `updated_at` tells when an administrator changed what is recorded, which is not now.
    session.execute(
        update(Registry)
        .where(Registry.id == registry.id)
        .values(**values, updated_at=Registry.updated_at)
        .execution_options(synchronize_session=False)
    )
    session.refresh(registry)
