"""Who sends a request: the API key in `Authorization`, in any of the forms that clients use."""

from flask import g, request

from shared.database import database
from shared.keys import Caller, known_keys
from shared.refusals import Code, Refusal

SCHEMES = ("simple", "bearer")
MAX_KEY = 512


def authenticate() -> None:
    """Recognise the caller before anything else is read.

    Raises:
        Refusal: 401, no key or one that is unknown or revoked.
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


def _unknown(message: str) -> Refusal:
    return Refusal(401, Code.BAD_KEY, message, headers={"WWW-Authenticate": "Simple"})
