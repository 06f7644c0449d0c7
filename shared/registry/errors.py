"""Error responses of registries as classified errors (design: a job's life)."""

from collections.abc import Collection

from shared.errors import ErrorClass, WorkError
from shared.net.errors import class_of_status, excerpt, retry_after
from shared.net.responses import Response

_CLASS_OF_CODE = {
    "UNAUTHORIZED": ErrorClass.AUTH,
    "DENIED": ErrorClass.AUTH,
    "NAME_UNKNOWN": ErrorClass.NOT_FOUND,
    "MANIFEST_UNKNOWN": ErrorClass.NOT_FOUND,
    "BLOB_UNKNOWN": ErrorClass.NOT_FOUND,
    "BLOB_UPLOAD_UNKNOWN": ErrorClass.TRANSIENT,
    "BLOB_UPLOAD_INVALID": ErrorClass.TRANSIENT,
    # Garbage collection deleted a layer that the registry still claimed to have: the next attempt uploads it.
    "MANIFEST_BLOB_UNKNOWN": ErrorClass.TRANSIENT,
    "TOOMANYREQUESTS": ErrorClass.THROTTLED,
}
"""Codes of the distribution spec (error codes) whose class differs from that of their status."""
_ADVICE = {
    ErrorClass.NOT_FOUND: "Check the registry's path, and create the repository first if the registry requires that.",
    ErrorClass.INVALID: "The same request will be refused again: see the message of the registry.",
    ErrorClass.THROTTLED: "It asked to slow down.",
    ErrorClass.TRANSIENT: "This may be temporary.",
}


def error_from_response(
    host: str, response: Response, action: str, *, with_credentials: bool = True, secrets: Collection[str] = ()
) -> WorkError:
    """Return the classified error of an unexpected response.

    `action` completes the sentence "… while": "pushing to team/name". `secrets` are removed from the message.
    """
    error_class = class_of_status(response.status)
    if error_class in (ErrorClass.NOT_FOUND, ErrorClass.INVALID):
        error_class = _CLASS_OF_CODE.get(str(_first_error(response).get("code", "")), error_class)
    detail = excerpt(_detail(response), secrets)
    status = f"{response.status}: {detail}" if detail else f"{response.status}"
    message = f"{host} answered {status} while {action}. {_advice(error_class, response.status, with_credentials)}"
    return WorkError(error_class, message, retry_after=retry_after(response.headers.get("Retry-After")))


def _first_error(response: Response) -> dict[str, object]:
    errors = response.json_object().get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return first if isinstance(first, dict) else {}


def _detail(response: Response) -> str:
    """Return the message in the body: the distribution spec's errors, a token server's, or plain text."""
    if response.is_html:
        return "an HTML page instead of a registry's response"
    first, document = _first_error(response), response.json_object()
    parts = [first.get("code"), first.get("message")]
    parts += [document.get(key) for key in ("error", "error_description", "details", "message")]
    detail = ", ".join(part for part in parts if isinstance(part, str) and part)
    return detail if detail or document else response.body[:2000].decode("utf-8", "replace")


def _advice(error_class: ErrorClass, status: int, with_credentials: bool) -> str:
    if error_class is not ErrorClass.AUTH:
        return _ADVICE[error_class]
    if not with_credentials:
        return "Give it a username and a password."
    if status == 401:
        return "Check the username and the password, and that the account may do this."
    return "Use an account that may do this."
