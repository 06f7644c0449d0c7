"""The audit trail: who changed what, when, from where. Entries are written in the transaction of the change."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session

from shared.db.models import AuditEvent
from shared.plain_text import plain_line

MAX_TEXT_LENGTH = 500
"""Maximum length of a text in `detail`, in characters."""
_INSERT = insert(AuditEvent)


@dataclass(frozen=True)
class Actor:
    """The author of a change."""

    name: str
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None


def record(
    session: Session, actor: Actor, action: str, target_id: str, *, owner: str | None = None, **detail: Any
) -> None:
    """Record an action (`registry.create`, for example) on the object with this id. `detail` must not hold a secret."""
    session.connection().execute(
        _INSERT,
        {
            "actor": plain_line(actor.name),
            "key_id": actor.key_id,
            "address": actor.address and plain_line(actor.address),
            "request_id": actor.request_id,
            "action": action,
            "target_id": plain_line(target_id)[:64],
            "owner": owner,
            "detail": {name: _stored(value) for name, value in detail.items() if value is not None},
        },
    )


def entries(
    *,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    owner: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Select[tuple[AuditEvent]]:
    """Return a query for the entries that match; None matches all.

    `action` is a whole action or a prefix that ends with a dot (`registry.`). `since` (included) and `until` (excluded)
    are in milliseconds.
    """
    equal = {"actor": actor, "target_id": target, "owner": owner}
    rows = select(AuditEvent).filter_by(**{name: value for name, value in equal.items() if value is not None})
    if action is not None and action.endswith("."):
        rows = rows.where(AuditEvent.action.startswith(action, autoescape=True))
    elif action is not None:
        rows = rows.where(AuditEvent.action == action)
    if since is not None:
        rows = rows.where(AuditEvent.created_at >= since)
    if until is not None:
        rows = rows.where(AuditEvent.created_at < until)
    return rows


def _stored(value: Any) -> Any:
    """Return a value with texts plain, because callers chose some of them, and not too long."""
    if isinstance(value, str):
        text = plain_line(value)
        return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
    if isinstance(value, dict):
        return {str(_stored(key)): _stored(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_stored(part) for part in value]
    return value
