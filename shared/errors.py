"""How work can fail: the classes of error that decide what happens next (design: a job's life).

Text from outside (registries, git, programs in a build), made fit for every database.
"""

from enum import StrEnum


class ErrorClass(StrEnum):
    """Why a job did not get done; the class alone decides whether it is tried again."""

    AUTH = "auth"
    """The registry or repository refused the credentials, or what they may do. Fails now."""
    NOT_FOUND = "not_found"
    """What was named does not exist there. Fails now."""
    INVALID = "invalid"
    """What was sent, or what answered, can never work (broken source, untrusted certificate). Fails now."""
    THROTTLED = "throttled"
    """The other side asked to slow down (429). Tried again when it said, else by the retry delays."""
    TRANSIENT = "transient"
    """The other side failed in a way that passes (5xx, timeout, reset, EOF). Tried again by the retry delays."""
    UNAVAILABLE = "unavailable"
    """Something of our own is missing (engine, disk). Waits, spends no try."""
    LOST = "lost"
    """The worker went away: its lease ran out. Taken over by whoever claims next, spends no try."""
    SUPERSEDED = "superseded"
    """A newer push of the same version to the same registry took its place."""


class WorkError(Exception):
    """A job could not be done, with the class that decides what happens next.

    `message` is a sentence for the caller that says what to do; it never holds a credential.
    `retry_after` is in seconds, where the other side named a time.
    """

    def __init__(self, error_class: ErrorClass, message: str, *, retry_after: float | None = None) -> None:
        self.message = sentence(storable(message))
        super().__init__(self.message)
        self.error_class = error_class
        self.retry_after = retry_after
        self.first_answer = False
        """Whether a registry answered so to the first question, before anything of this very push was asked."""
        self.at_registry = False
        """Whether it came from the registry that is pushed to, and not from where the image comes from."""


class WorkCancelledError(Exception):
    """The work was asked to stop (cancelled, superseded, lease lost or shutdown); nothing more may be written."""


def storable(text: str) -> str:
    """`text` with a mark in place of what cannot be stored: NUL (in PostgreSQL) and lone surrogates (no UTF-8)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def sentence(text: str) -> str:
    """`text` with a capital and a full stop; a first word that is a name (of a file, a host) stays as it is."""
    first = text.partition(" ")[0]
    if first.isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
