"""What the present request does, for the audit trail."""

from typing import Any

import structlog
from flask import g, request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.addresses import caller_address
from shared.audit import Actor, record
from shared.database import database
from shared.keys import Caller

log = structlog.get_logger(__name__)

READING = ("GET", "HEAD", "OPTIONS")


def audit(session: Session, action: str, target_id: str, *, owner: str | None = None, **detail: Any) -> None:
    """Write down, in the transaction that does it, what this request does to what."""
    record(session, _actor(g.caller), action, target_id, owner=owner, **detail)


def audit_denied(message: str) -> None:
    """Write down that this request was not allowed what it wanted to change; failing to do so changes no answer."""
    known: Caller | None = g.get("caller")
    if known is None or request.method in READING:
        return
    try:
        with database().writing() as session:
            detail = {"method": request.method, "path": request.path, "reason": message}
            record(session, _actor(known), "denied", known.key_id, **detail)
    except SQLAlchemyError as error:
        log.warning("not written into the audit trail", error=type(error).__name__)


def _actor(known: Caller) -> Actor:
    address = caller_address(request.remote_addr, request.headers.get("X-Forwarded-For"))
    return Actor(known.owner, known.key_id, address, g.get("request_id"))
