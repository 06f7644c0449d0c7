"""Authenticate the clients of the git service, and authorise what they may do with a repository."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.errors import ApiError, Code
from shared.algorithms import find_algorithm
from shared.db.models import Algorithm
from shared.errors import NotFoundError, RequestError
from shared.git.hosted import is_git_token, verify_git_token
from shared.keys import Caller, authenticate_key


@dataclass(frozen=True)
class Grant:
    """The algorithm whose repository may be used in this request, and the user."""

    algorithm: Algorithm
    user: str
    key_id: str | None = None
    """The key that was used; None: the token of a job."""


def authenticate(session: Session, secret: str | None) -> Caller | None:
    """Return the owner of the key; None if it is the token of a job.

    Raises:
        ApiError: there is no key, or an unknown one.
    """
    if secret is None:
        raise _unauthenticated("Give an API key as the password (any username).")
    if is_git_token(secret):
        return None
    caller = authenticate_key(session, secret)
    if caller is None:
        raise _unauthenticated("The API key is unknown or was revoked.")
    return caller


def grant_token(session: Session, token: str, path: str, *, pushes: bool) -> Grant:
    """Let a job fetch from the repository of its algorithm at OWNER/NAME.

    Raises:
        ApiError: the token is for another repository or action, or there is no such repository: anybody can make up
            a token, so the error does not say which.
    """
    try:
        algorithm = _find_hosted(session, path)
    except RequestError:
        algorithm = None
    is_valid = verify_git_token(token, "fetch", algorithm.id if algorithm else "")
    if pushes or algorithm is None or not is_valid:
        raise _unauthenticated("The token is for another repository or action, or has expired.")
    return Grant(algorithm, "job")


def grant(session: Session, caller: Caller, path: str, *, pushes: bool) -> Grant:
    """Let a caller fetch from, or push to, the repository of the algorithm at OWNER/NAME.

    Raises:
        NotFoundError: no such repository, or none that the caller may know of.
        PermissionDeniedError: the caller may fetch but not push.
    """
    algorithm = _find_hosted(session, path, caller)
    if pushes:
        caller.require_manager(algorithm)
    return Grant(algorithm, caller.owner, caller.key_id)


def _find_hosted(session: Session, path: str, caller: Caller | None = None) -> Algorithm:
    # The same error for a missing algorithm and for one that the caller may not see.
    unknown = ApiError(404, Code.NO_SUCH_ALGORITHM_NAME, f"No such algorithm: {path}")
    try:
        algorithm = find_algorithm(session, path)
    except RequestError:
        raise unknown from None
    is_open = algorithm.settings.get("source_visibility") == "open"  # every known key may fetch it
    if caller is not None and not is_open and not caller.may_read(algorithm):
        raise unknown
    if not algorithm.hosted:
        raise NotFoundError(f"The source of {path} is not kept here, but in a repository elsewhere.")
    return algorithm


def _unauthenticated(message: str) -> RequestError:
    return ApiError(
        401, Code.BAD_KEY, message, headers={"WWW-Authenticate": 'Basic realm="Longshore", charset="UTF-8"'}
    )
