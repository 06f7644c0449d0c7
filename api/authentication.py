"""Who sends a request: the API key in `Authorization`, in any of the forms that clients use.

What the present request does, for the audit trail.
"""

from typing import Any

import structlog
from flask import g, request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.error_codes import ApiError, Code
from api.proxy_headers import caller_address
from api.rate_limits import rate_limits
from shared.audit import Actor, record
from shared.db.engine import database
from shared.errors import RequestError
from shared.keys import Caller, known_keys

SCHEMES = ("simple", "bearer")
MAX_KEY = 512


def authenticate() -> None:
    """Recognise the caller before anything else is read.

    Raises:
        ApiError: there is no key, or it is unknown or revoked.
    """
    secret = _secret(request.headers.get("Authorization", ""))
    if not secret:
        raise _unknown("This needs an API key: send the header `Authorization: Simple KEY`.")
    known = known_keys.authenticate_key(database(), secret)
    if known is None:
        raise _unknown("This API key is not known here, or was revoked.")
    g.caller = known


def caller() -> Caller:
    """The caller of this request."""
    known: Caller = g.caller
    return known


def _secret(header: str) -> str:
    scheme, _, rest = header.strip().partition(" ")
    secret = rest.strip() if scheme.lower() in SCHEMES else header.strip()
    return secret if len(secret) <= MAX_KEY else ""


def _unknown(message: str) -> RequestError:
    return ApiError(401, Code.BAD_KEY, message, headers={"WWW-Authenticate": "Simple"})


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
