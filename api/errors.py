"""HTTP statuses and the platform's error codes (contract: errors, codes), also for domain errors."""

from enum import IntEnum

from shared.algorithms import AlgorithmNotFoundError
from shared.commands.publish import AlreadyPublishedError
from shared.errors import (
    ConflictError,
    InvalidInputError,
    LimitReachedError,
    NotFoundError,
    PermissionDeniedError,
    RequestError,
    UnavailableError,
)


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


class ApiError(RequestError):
    """Raised in `api` for an error with its own HTTP status or code.

    `headers` are sent with the response. `Retry-After` is taken from `retry_after`.
    """

    def __init__(
        self,
        status: int,
        code: Code,
        message: str,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        if retry_after:
            self.headers["Retry-After"] = str(int(retry_after))


_NAMED_BY = {
    "name": Code.NO_SUCH_ALGORITHM_NAME,
    "id": Code.NO_SUCH_ALGORITHM_ID,
    "neither": Code.NO_SUCH_ALGORITHM,
}
_STATUS_AND_CODE = {
    InvalidInputError: (400, Code.INVALID_REQUEST),
    AlreadyPublishedError: (400, Code.ALREADY_PUBLISHED),
    PermissionDeniedError: (403, Code.NOT_AUTHORIZED),
    NotFoundError: (404, Code.NOT_FOUND),
    ConflictError: (409, Code.INVALID_REQUEST),
    LimitReachedError: (429, Code.INVALID_REQUEST),
    UnavailableError: (503, Code.INVALID_REQUEST),
}


def api_error(error: RequestError) -> ApiError:
    """Return the error with its HTTP status and code; one that has them already is returned as it is."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, AlgorithmNotFoundError):
        status, code = 404, _NAMED_BY[error.named_by]
    else:
        status, code = _STATUS_AND_CODE[type(error)]
    return ApiError(status, code, error.message, retry_after=error.retry_after)
