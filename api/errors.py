"""Error responses: every error is sent as the contract's JSON, with an id, the platform's code and a message."""

import structlog
from apiflask import APIFlask
from flask import Response, g, jsonify
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from api.authentication import audit_denied
from api.error_codes import Code, api_error
from shared.errors import ConflictError, RequestError, UnavailableError

log = structlog.get_logger(__name__)

CODES = {400: Code.INVALID_REQUEST, 401: Code.BAD_KEY, 403: Code.NOT_AUTHORIZED, 404: Code.NOT_FOUND}
SENTENCES = {
    404: "There is nothing at this path; /docs lists the paths.",
    405: "This path does not take that method; /docs lists the methods it takes.",
    413: "The request is too large.",
    414: "The URL is too long.",
}

# A commit may have succeeded although its response was lost.
DATABASE_UNREACHABLE = (
    "The database does not respond. It is unknown whether the request was carried out (completely or not at all): send "
    "it again. With the same Idempotency-Key a request that enqueues is carried out once."
)


def error_response(status: int, code: Code, message: str, headers: dict[str, str] | None = None) -> Response:
    response = jsonify({"error": {"id": g.get("request_id", ""), "code": int(code), "message": message}})
    response.status_code = status
    response.headers.update(headers or {})
    return response


def register_errors(app: APIFlask) -> None:
    """Register handlers that turn every exception into the contract's JSON."""

    @app.errorhandler(RequestError)
    def request_error(raised: RequestError) -> Response:
        error = api_error(raised)
        if error.status == 403:
            audit_denied(error.message)
        return error_response(error.status, error.code, error.message, error.headers)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        message = SENTENCES.get(status, error.description or error.name)
        return error_response(status, CODES.get(status, Code.INVALID_REQUEST), message, headers)

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(PoolTimeout)
    def database_unreachable(error: Exception) -> Response:
        log.error("database_unreachable", error=type(error).__name__)
        return request_error(UnavailableError(DATABASE_UNREACHABLE, retry_after=5))

    @app.errorhandler(DBAPIError)
    def database_error(error: DBAPIError) -> Response:
        return database_unreachable(error) if error.connection_invalidated else unexpected_error(error)

    @app.errorhandler(IntegrityError)
    def constraint_violated(_error: IntegrityError) -> Response:
        log.info("unique_constraint_violated")
        return request_error(
            ConflictError("Another request did the same at the same time; look at its result, or send this one again.")
        )

    @app.errorhandler(Exception)
    def unexpected_error(error: Exception) -> Response:
        log.error("request_failed", exc_info=error, error=type(error).__name__)
        return error_response(
            500,
            Code.INTERNAL,
            f"An unexpected error occurred; the log has its cause under the request id {g.get('request_id', '')}.",
        )
