"""Authentication of a request by its API key, access to algorithms, and the audit events of a request.

Clients send the key in the header `Authorization`, in one of several forms.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import structlog
from flask import Response, g, request
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.errors import ApiError, Code
from api.proxy_headers import client_address
from api.rate_limits import rate_limits
from shared.algorithms import find_version, find_visible_algorithm
from shared.audit import Actor, record
from shared.db.engine import database
from shared.db.models import Algorithm, Owner, Version
from shared.errors import RequestError
from shared.keys import Caller, known_keys

log = structlog.get_logger(__name__)

MAX_KEY_LENGTH = 512
READ_METHODS = ("GET", "HEAD", "OPTIONS")
P = ParamSpec("P")


def authenticate() -> None:
    """Find the caller of this request by its key, before anything else of the request is read.

    Raises:
        ApiError: there is no key, or it is unknown or revoked.
    """
    header = request.headers.get("Authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    secret = rest.strip() if scheme.lower() in ("simple", "bearer") else header
    if not secret or len(secret) > MAX_KEY_LENGTH:
        raise _bad_key("This needs an API key: send the header `Authorization: Simple KEY`.")
    g.caller = known_keys.authenticate_key(database(), secret)
    if g.caller is None:
        raise _bad_key("This API key is unknown, or was revoked.")


def sent_by_admin() -> bool:
    """Return whether a request that needs no key has the key of an administrator."""
    if "Authorization" not in request.headers:
        return False
    try:
        authenticate()
    except (RequestError, SQLAlchemyError):
        return False
    return caller().admin


def _bad_key(message: str) -> ApiError:
    return ApiError(401, Code.BAD_KEY, message, headers={"WWW-Authenticate": "Simple"})


def caller() -> Caller:
    return cast("Caller", g.caller)


def admin_only(view: Callable[P, Response]) -> Callable[P, Response]:
    """Let only administrators use a view. It stands below `input`: a bad request is a bad request from every caller."""

    @wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Response:
        caller().require_admin()
        return view(*args, **kwargs)

    return checked


def readable_algorithm(session: Session, name: str) -> Algorithm:
    """Return the algorithm with this name or id.

    Raises:
        NotFoundError: no such algorithm, or none that the caller may know of.
        PermissionDeniedError: the caller may call it, but not read it.
    """
    algorithm = find_visible_algorithm(session, caller(), name)
    caller().require_reader(algorithm)
    return algorithm


def managed_algorithm(session: Session, name: str) -> Algorithm:
    """Return the algorithm with this name or id, to change it.

    Raises:
        NotFoundError: no such algorithm, or none that the caller may know of.
        PermissionDeniedError: the caller may not manage it.
    """
    algorithm = find_visible_algorithm(session, caller(), name)
    caller().require_manager(algorithm)
    return algorithm


def readable_version(session: Session, name: str, git_hash: str) -> tuple[Algorithm, Version]:
    """Return an algorithm, as `readable_algorithm` does, and its version at a commit."""
    algorithm = readable_algorithm(session, name)
    return algorithm, find_version(session, algorithm, git_hash)


def managed_version(session: Session, name: str, git_hash: str) -> tuple[Algorithm, Version]:
    """Return an algorithm, as `managed_algorithm` does, and its version at a commit."""
    algorithm = managed_algorithm(session, name)
    return algorithm, find_version(session, algorithm, git_hash)


def require_known_owner(session: Session, username: str) -> None:
    """Raise ApiError if there is no owner with this name."""
    if session.scalar(select(Owner).where(Owner.username == username)) is None:
        raise unknown_owner(username)


def unknown_owner(username: str) -> ApiError:
    return ApiError(
        404, Code.NO_SUCH_OWNER, f"There is no owner {username!r}; an administrator creates it with its first key."
    )


def audit(session: Session, action: str, target_id: str, *, owner: str | None = None, **detail: Any) -> None:
    """Write an audit event of this request, in the transaction that does the action."""
    record(session, _actor(g.caller), action, target_id, owner=owner, **detail)


def about(algorithm: Algorithm, version: Version) -> dict[str, Any]:
    return {"owner": algorithm.owner, "algorithm": algorithm.path, "commit": version.git_hash}


def audit_denied(message: str) -> None:
    """Write an audit event if this request was denied a change."""
    known: Caller | None = g.get("caller")
    if known is not None and request.method not in READ_METHODS:
        record_denied(_actor(known), request.method, request.path, message)


def record_denied(actor: Actor, method: str, path: str, message: str) -> None:
    """Write an audit event of a denied request, in its own transaction. A failure is logged and changes no response."""
    if actor.key_id is None or not rate_limits().may_audit_denial(actor.name):
        return
    try:
        with database().writing() as session:
            record(session, actor, "denied", actor.key_id, method=method, path=path, reason=message)
    except SQLAlchemyError as error:
        log.warning("audit_event_not_written", error=type(error).__name__)


def _actor(known: Caller) -> Actor:
    return Actor(known.owner, known.key_id, client_address(request), g.get("request_id"))
