"""Every error leaves as the contract's JSON: an id, the platform's code, and what to do."""

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
    404: "There is nothing at this address; /docs lists what there is.",
    405: "This address does not take that method; /docs lists what it takes.",
    413: "The request is too large.",
    414: "The address is too long.",
}

# A commit whose answer was lost may have been done all the same.
DATABASE_AWAY = (
    "The database does not answer. Whether the request was carried out, whole or not at all, is not known: send it "
    "again; with the same Idempotency-Key what enqueues is done once."
)


def error_response(status: int, code: Code, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as the contract shapes it."""
    response = jsonify({"error": {"id": g.get("request_id", ""), "code": int(code), "message": message}})
    response.status_code = status
    response.headers.update(headers or {})
    return response


def register_errors(app: APIFlask) -> None:
    """Turn everything that can be raised into the contract's JSON."""

    @app.errorhandler(RequestError)
    def refused(raised: RequestError) -> Response:
        error = api_error(raised)
        if error.status == 403:
            audit_denied(error.message)
        return error_response(error.status, error.code, error.message, error.headers)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        message = SENTENCES.get(status, error.description or error.name)
        return error_response(status, CODES.get(status, Code.INVALID_REQUEST), message, headers)

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(PoolTimeout)
    def database_away(error: Exception) -> Response:
        log.error("the database did not answer", error=type(error).__name__)
        return refused(UnavailableError(DATABASE_AWAY, retry_after=5))

    @app.errorhandler(DBAPIError)
    def database_failed(error: DBAPIError) -> Response:
        return database_away(error) if error.connection_invalidated else unexpected(error)

    @app.errorhandler(IntegrityError)
    def met_another(_error: IntegrityError) -> Response:
        log.info("two requests met in a unique constraint")
        return refused(
            ConflictError("Another request did the same at this moment; look at what it did, or send it again.")
        )

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        log.exception("unexpected error", error=type(error).__name__)
        return error_response(
            500, Code.INTERNAL, f"Something went wrong here; the log has it under the id {g.get('request_id', '')}."
        )
