"""What the present request does, for the audit trail."""

from typing import Any

import structlog
from flask import g, request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.addresses import caller_address
from api.rate_limits import rate_limits
from shared.audit import Actor, record
from shared.database import database
from shared.keys import Caller

log = structlog.get_logger(__name__)

READING = ("GET", "HEAD", "OPTIONS")


def audit(session: Session, action: str, target_id: str, *, owner: str | None = None, **detail: Any) -> None:
    """Write down, in the transaction that does it, what this request does to what."""
    record(session, _actor(g.caller), action, target_id, owner=owner, **detail)


def audit_denied(message: str) -> None:
    """Write down that this request was not allowed what it wanted to change."""
    known: Caller | None = g.get("caller")
    if known is not None and request.method not in READING:
        record_denied(_actor(known), request.method, request.path, message)


def record_denied(actor: Actor, method: str, path: str, message: str) -> None:
    """Write down, in a transaction of its own, that somebody was not allowed something; failing changes no answer."""
    if actor.key_id is None or not rate_limits().is_worth_noting(actor.key_id):
        return
    try:
        with database().writing() as session:
            record(session, actor, "denied", actor.key_id, method=method, path=path, reason=message)
    except SQLAlchemyError as error:
        log.warning("not written into the audit trail", error=type(error).__name__)


def _actor(known: Caller) -> Actor:
    address = caller_address(request)
    return Actor(known.owner, known.key_id, address, g.get("request_id"))
