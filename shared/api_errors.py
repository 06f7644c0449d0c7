"""What is refused to a caller, in the platform's own numbers: raised by the domain, shown by the API."""

from enum import IntEnum


class Code(IntEnum):
    """The platform's error numbers (contract: codes)."""

    NO_SUCH_ALGORITHM = 1000
    NO_SUCH_ALGORITHM_NAME = 1001
    NAME_TAKEN = 1002
    ALREADY_PUBLISHED = 1007
    NO_SUCH_ALGORITHM_ID = 1009
    NOT_AUTHORIZED = 2001
    BAD_KEY = 2002
    INVALID_JSON = 2013
    INVALID_REQUEST = 2015
    NO_SUCH_OWNER = 3000
    UNKNOWN_LANGUAGE = 4001
    INTERNAL = 5001
    BAD_MARKER = 5002
    BAD_LIMIT = 5003
    NOT_FOUND = 5004
    INVALID = 6001


class Refusal(Exception):  # noqa: N818 - the caller's error, not ours
    """Something a caller asked for is not done; `message` says what and what to do, `status` is the HTTP status."""

    def __init__(self, status: int, code: Code, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def bad_request(message: str, code: Code = Code.INVALID_REQUEST) -> Refusal:
    """400: the request itself is wrong."""
    return Refusal(400, code, message)


def not_allowed(message: str) -> Refusal:
    """403: the key is known, but may not do this."""
    return Refusal(403, Code.NOT_AUTHORIZED, message)


def missing(message: str, code: Code = Code.NOT_FOUND) -> Refusal:
    """404: what was named does not exist."""
    return Refusal(404, code, message)


def conflict(message: str, code: Code = Code.INVALID_REQUEST, *, retry_after: int | None = None) -> Refusal:
    """409: it cannot be done in the present state, which may be another one after so many seconds."""
    return Refusal(409, code, message, headers={"Retry-After": str(retry_after)} if retry_after else None)


def too_many(message: str, *, seconds: int) -> Refusal:
    """429: this caller asks too much; it may go on after so many seconds."""
    return Refusal(429, Code.INVALID_REQUEST, message, headers={"Retry-After": str(seconds)})


def try_later(message: str, *, seconds: int) -> Refusal:
    """503: something of ours is away; the same request may be sent again."""
    return Refusal(503, Code.INVALID_REQUEST, message, headers={"Retry-After": str(seconds)})
