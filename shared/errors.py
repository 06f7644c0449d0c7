"""The errors that Longshore raises, in one hierarchy below `LongshoreError`.

`WorkError` says why a job could not be done; its class decides what happens next (design: a job's life). `RequestError`
says why a caller's request was refused; `api` turns it into an HTTP status. `InvalidValueError` says what is wrong with
a value. Errors of one module derive from one of these, stand in that module, and are named `…Error`.
"""

from enum import StrEnum

from shared.plain_text import plain_text


class ErrorClass(StrEnum):
    """Why a job failed. The class alone decides whether it is retried."""

    AUTH = "auth"
    """The registry or repository refused the credentials, or what they may do. Fails at once."""
    NOT_FOUND = "not_found"
    """What was named does not exist there. Fails at once."""
    INVALID = "invalid"
    """The request or the response can never work (broken source, untrusted certificate). Fails at once."""
    THROTTLED = "throttled"
    """The other side asked to slow down (429). Retried after its `Retry-After`, else after the retry delays."""
    TRANSIENT = "transient"
    """The other side failed in a way that passes (5xx, timeout, reset, EOF). Retried after the retry delays."""
    UNAVAILABLE = "unavailable"
    """Something of the installation is missing (engine, disk space). Waits, spends no attempt."""
    LOST = "lost"
    """The worker is gone: its lease expired. Taken over by the next worker, spends no attempt."""
    SUPERSEDED = "superseded"
    """A newer push of the same version to the same registry replaced this one."""


class LongshoreError(Exception):
    """The base of all errors that Longshore raises itself.

    `message` is a sentence for people, without any secret. It is processed by `plain_text`, because it often contains
    untrusted text.
    """

    def __init__(self, message: str) -> None:
        self.message = plain_text(message)
        super().__init__(self.message)


class WorkError(LongshoreError):
    """Raised when a job cannot be done; `error_class` decides what happens next.

    `message` says what happened and what to do. `retry_after` is in seconds, where the other side named a time.
    """

    def __init__(self, error_class: ErrorClass, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence(plain_text(message)))
        self.error_class = error_class
        self.retry_after = retry_after
        self.first_response = False
        """Whether it is the response to the first request of a push, which concerns the registry as a whole."""
        self.at_registry = False
        """Whether it came from the registry that the push goes to, and not from the source of the image."""


class WorkCancelledError(LongshoreError):
    """Raised in work that must stop (cancelled, superseded, lease lost or shutdown). Nothing more may be written."""


class InvalidValueError(LongshoreError, ValueError):
    """Raised when a value from outside is invalid. A `ValueError`, so that pydantic reports it for its field."""


class RequestError(LongshoreError):
    """Raised when a caller's request is refused. `message` says why and what to do."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which the same request may succeed; None: unknown."""


class InvalidInputError(RequestError):
    """Raised when the request itself is wrong."""


class PermissionDeniedError(RequestError):
    """Raised when the key is known but not allowed to do this."""


class NotFoundError(RequestError):
    """Raised when what the request names does not exist."""


class ConflictError(RequestError):
    """Raised when the request does not fit the present state."""


class LimitReachedError(RequestError):
    """Raised when an owner has reached a limit: of requests in progress, queued jobs, or keys."""


class UnavailableError(RequestError):
    """Raised when a part of the installation does not respond. The same request may be sent again."""


def sentence(text: str) -> str:
    """Return `text` with a capital letter and a full stop. A first word that is a file or host name is kept."""
    if text.partition(" ")[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
