"""What a registry does wrong, as the class of error that decides what happens next (design: a job's life)."""

from collections.abc import Collection

from shared.errors import ErrorClass, WorkError
from shared.net.errors import class_of_status, excerpt, retry_after
from shared.net.http import Response

_CLASS_OF_CODE = {
    "UNAUTHORIZED": ErrorClass.AUTH,
    "DENIED": ErrorClass.AUTH,
    "NAME_UNKNOWN": ErrorClass.NOT_FOUND,
    "MANIFEST_UNKNOWN": ErrorClass.NOT_FOUND,
    "BLOB_UNKNOWN": ErrorClass.NOT_FOUND,
    "BLOB_UPLOAD_UNKNOWN": ErrorClass.TRANSIENT,
    "BLOB_UPLOAD_INVALID": ErrorClass.TRANSIENT,
    # A layer that garbage collection took while the registry still claimed to have it: the next try uploads it.
    "MANIFEST_BLOB_UNKNOWN": ErrorClass.TRANSIENT,
    "TOOMANYREQUESTS": ErrorClass.THROTTLED,
}
"""Codes of the distribution spec (error codes) whose class is not that of their status."""
_ADVICE = {
    ErrorClass.NOT_FOUND: "Check the registry's path, and create the repository first where the registry wants that.",
    ErrorClass.INVALID: "The same request will be refused again: see what the registry says.",
    ErrorClass.THROTTLED: "It asked to slow down.",
    ErrorClass.TRANSIENT: "This may pass.",
}


def error_from_response(
    host: str, answer: Response, doing: str, *, with_credentials: bool = True, secrets: Collection[str] = ()
) -> WorkError:
    """The error that an answer means which is not the one hoped for.

    `doing` ends the sentence "… while": "pushing to team/name". `secrets` are never repeated from the answer.
    """
    error_class = _class_of(answer)
    detail = excerpt(_said(answer), secrets)
    what = f"{answer.status}: {detail}" if detail else f"{answer.status}"
    message = f"{host} answered {what} while {doing}. {_advice(error_class, answer.status, with_credentials)}"
    return WorkError(error_class, message, retry_after=retry_after(answer.headers.get("Retry-After")))


def _class_of(answer: Response) -> ErrorClass:
    by_status = class_of_status(answer.status)
    if by_status not in (ErrorClass.NOT_FOUND, ErrorClass.INVALID):
        return by_status
    return _CLASS_OF_CODE.get(str(_first_error(answer).get("code", "")), by_status)


def _first_error(answer: Response) -> dict[str, object]:
    errors = answer.json_object().get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return first if isinstance(first, dict) else {}


def _said(answer: Response) -> str:
    """What the body says: the distribution spec's errors, a token server's, or a line of plain text."""
    if answer.is_html:
        return "a page instead of a registry's answer"
    first, document = _first_error(answer), answer.json_object()
    parts = [first.get("code"), first.get("message")]
    parts += [document.get(key) for key in ("error", "error_description", "details", "message")]
    said = ", ".join(part for part in parts if isinstance(part, str) and part)
    return said if said or document else answer.body[:2000].decode("utf-8", "replace")


def _advice(error_class: ErrorClass, status: int, with_credentials: bool) -> str:
    if error_class is not ErrorClass.AUTH:
        return _ADVICE[error_class]
    if not with_credentials:
        return "Give it a username and a password."
    if status == 401:
        return "Check the username and the password, and that the account may do this."
    return "Give an account that may do this."
