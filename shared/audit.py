"""The audit trail: who did what, when, from where; written in the transaction that did it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session

from shared.db.models import AuditEvent

MAX_TEXT = 500
"""Characters of one text in a detail: what a caller wrote can be long."""


@dataclass(frozen=True)
class Actor:
    """Who does something."""

    name: str
    """The owner whose key it is, or `cli`."""
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None


def record(
    session: Session, actor: Actor, action: str, target_id: str, *, owner: str | None = None, **detail: Any
) -> None:
    """Write down that somebody did something (`registry.create`) to what has this id. `detail` never holds a secret."""
    session.connection().execute(
        _ENTRY,
        {
            "actor": actor.name,
            "key_id": actor.key_id,
            "address": actor.address,
            "request_id": actor.request_id,
            "action": action,
            "target_id": target_id[:64],
            "owner": owner,
            "detail": {name: _short(value) for name, value in detail.items() if value is not None},
        },
    )


_ENTRY = insert(AuditEvent)


def entries(
    *,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    owner: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Select[tuple[AuditEvent]]:
    """The entries that are asked for; what is left out narrows nothing.

    `action` is a whole one, or what it begins with (`registry.`); `since` and `until` are in milliseconds, the latter
    excluded.
    """
    rows = select(AuditEvent)
    if action is not None and action.endswith("."):
        rows = rows.where(AuditEvent.action.startswith(action, autoescape=True))
    elif action is not None:
        rows = rows.where(AuditEvent.action == action)
    if actor is not None:
        rows = rows.where(AuditEvent.actor == actor)
    if target is not None:
        rows = rows.where(AuditEvent.target_id == target)
    if owner is not None:
        rows = rows.where(AuditEvent.owner == owner)
    if since is not None:
        rows = rows.where(AuditEvent.created_at >= since)
    if until is not None:
        rows = rows.where(AuditEvent.created_at < until)
    return rows


def _short(value: Any) -> Any:
    return f"{value[: MAX_TEXT - 1]}…" if isinstance(value, str) and len(value) > MAX_TEXT else value
