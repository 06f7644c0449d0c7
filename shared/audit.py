"""The audit trail: who did what, when, from where; written in the transaction that did it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from shared.models import AuditEvent

MOST_TEXT = 500
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
    session.add(
        AuditEvent(
            actor=actor.name,
            key_id=actor.key_id,
            address=actor.address,
            request_id=actor.request_id,
            action=action,
            target_id=target_id[:64],
            owner=owner,
            detail={name: _short(value) for name, value in detail.items() if value is not None},
        )
    )
    session.flush()


def _short(value: Any) -> Any:
    return f"{value[: MOST_TEXT - 1]}…" if isinstance(value, str) and len(value) > MOST_TEXT else value
