"""The Flask application of the v1 API, and its error responses.

Routes overlap: `/v1/algorithms/X` means an owner for POST and an algorithm for other methods. The form of X decides,
and the `Allow` header names only the methods that fit it. Every error is sent as the JSON of the contract, with an id,
the code of the platform and a message.
"""

import re
import uuid
from importlib.metadata import version

import structlog
from apiflask import APIFlask
from flask import Response, g, jsonify, request, send_from_directory
from flask.globals import request_ctx
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from swagger_ui_bundle import swagger_ui_path
from werkzeug.exceptions import HTTPException

from api.absent_parts import ERROR_MESSAGE_HEADER, find_absent_part
from api.authentication import READ_METHODS, audit_denied, authenticate, caller
from api.errors import Code, api_error
from api.invocation.call_chain import nested_chain
from api.openapi import complete_document
from api.proxy_headers import OWNER_HEADER, client_address, owner_tag
from api.rate_limits import rate_limits
from api.resources import (
    algorithms,
    audit,
    bulk_pushes,
    calls,
    data,
    default_registries,
    environments,
    errors,
    health,
    jobs,
    keys,
    nodes,
    pulls,
    pushes,
    registries,
    scms,
    source,
    source_webhooks,
    versions,
    webhooks,
)
from api.routing import CALLS_PREFIX, AlgorithmIdConverter, OwnerConverter, with_normalized_paths
from api.schemas.base import ErrorResponse
from api.schemas.patterns import matches_path_parameter
from shared.errors import ConflictError, InvalidInputError, RequestError, UnavailableError
from shared.settings import settings

PUBLIC_PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{8,64}")
SWAGGER_PATH = "/docs/static"
MAX_COUNTED_NAME_LENGTH = 100
"""Of a name in a path that needs no key: no algorithm has a longer one, and counters of them stay small."""
log = structlog.get_logger(__name__)

CODES = {400: Code.INVALID_REQUEST, 401: Code.BAD_KEY, 403: Code.NOT_AUTHORIZED, 404: Code.NOT_FOUND}
SENTENCES = {
    404: "There is nothing at this path; /docs lists the paths.",
    405: "This path does not take that method; /docs lists the methods it takes.",
    413: "The body is larger than this path takes; send a smaller one.",
    414: "The URL is too long.",
}

# A commit may have succeeded although its response was lost.
DATABASE_UNREACHABLE = (
    "The database does not respond. It is unknown whether the request was carried out (completely or not at all): send "
    "it again. With the same Idempotency-Key a request that enqueues is carried out once."
)


def create_app() -> APIFlask:
    app = APIFlask(
        __name__,
        title="Longshore",
        version=version("longshore"),
        spec_path="/openapi.json",
        docs_path="/docs",
        static_folder=None,  # type: ignore[arg-type]
    )
    app.config.update(
        MAX_CONTENT_LENGTH=settings().max_body_bytes,
        VALIDATION_ERROR_STATUS_CODE=400,
        VALIDATION_ERROR_SCHEMA=ErrorResponse,
        HTTP_ERROR_SCHEMA=ErrorResponse,
        AUTO_VALIDATION_ERROR_RESPONSE=False,
        AUTO_404_RESPONSE=False,
        AUTO_SERVERS=False,  # the list would contain the Host of the first request
        SWAGGER_UI_CSS=f"{SWAGGER_PATH}/swagger-ui.css",
        SWAGGER_UI_BUNDLE_JS=f"{SWAGGER_PATH}/swagger-ui-bundle.js",
        SWAGGER_UI_STANDALONE_PRESET_JS=f"{SWAGGER_PATH}/swagger-ui-standalone-preset.js",
        DOCS_FAVICON=f"{SWAGGER_PATH}/favicon-32x32.png",
    )
    app.json_errors = False
    app.url_map.converters["owner"] = OwnerConverter
    app.url_map.converters["algorithm_id"] = AlgorithmIdConverter
    app.url_map.merge_slashes = False  # a path with // in it is unknown, not redirected
    app.wsgi_app = with_normalized_paths(app.wsgi_app)  # type: ignore[method-assign]
    register_errors(app)
    app.before_request(_before_request)
    app.after_request(_after_request)
    for resource in (
        registries,
        default_registries,
        keys,
        algorithms,
        versions,
        pulls,
        pushes,
        bulk_pushes,
        jobs,
        calls,
        data,
        environments,
        errors,
        scms,
        nodes,
        webhooks,
        source,
        source_webhooks,
        audit,
        health,
    ):
        app.register_blueprint(resource.blueprint)
    # The pages at /docs load nothing from outside: an installation may have no access to the internet.
    app.add_url_rule(
        f"{SWAGGER_PATH}/<path:filename>",
        "swagger",
        app.doc(hide=True)(lambda filename: send_from_directory(swagger_ui_path, filename)),
    )
    app.spec_processor(complete_document)  # type: ignore[arg-type]  # the document is JSON, so a dict
    return app


def _before_request() -> None:
    client_id = request.headers.get("X-Request-Id", "")
    g.request_id = client_id if REQUEST_ID_PATTERN.fullmatch(client_id) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    chain = nested_chain()
    if chain is not None:
        g.caller = chain.acting
        rate_limits().count_call(chain.limited)
    elif request.endpoint == source_webhooks.ENDPOINT:
        algorithm_name = (request.view_args or {})["algorithm_name"].lower()[:MAX_COUNTED_NAME_LENGTH]
        rate_limits().count_source_webhook(client_address(request) or "unknown", algorithm_name)
    elif not request.path.startswith(PUBLIC_PATHS):
        _authenticate()
    if isinstance(request.routing_exception, HTTPException):
        raise request.routing_exception
    if any("\0" in value for value in (request.path, *request.args.values(), *request.args.keys())):
        raise InvalidInputError("A path or query cannot contain the character NUL.")


def _authenticate() -> None:
    try:
        authenticate()
    except RequestError:
        rate_limits().count_unknown(client_address(request) or "unknown")
        raise
    if request.method in READ_METHODS:
        rate_limits().count_read(caller().owner)
    elif request.path.startswith(CALLS_PREFIX):
        rate_limits().count_call(caller().owner)
    else:
        rate_limits().count_change(caller().owner)


def _after_request(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["Cache-Control"] = "no-store"
    if known := g.get("caller"):
        response.headers[OWNER_HEADER] = owner_tag(known.owner)
    _narrow_allow_header(response)
    return response


def _narrow_allow_header(response: Response) -> None:
    """Keep in `Allow` the methods of the routes whose parameters have the form of this path."""
    adapter = request_ctx.url_adapter
    if "Allow" not in response.headers or adapter is None:
        return
    allowed = set(adapter.allowed_methods())
    fitting = {
        method
        for method in allowed - {"OPTIONS"}
        if all(matches_path_parameter(*item) for item in adapter.match(method=method)[1].items())
    }
    if fitting:
        response.headers["Allow"] = ", ".join(sorted(fitting | (allowed & {"OPTIONS"})))


def error_response(status: int, code: Code, message: str, headers: dict[str, str] | None = None) -> Response:
    response = jsonify({"error": {"id": g.get("request_id", ""), "code": int(code), "message": message}})
    response.status_code = status
    response.headers.update(headers or {})
    return response


def register_errors(app: APIFlask) -> None:

    @app.errorhandler(RequestError)
    def request_error(raised: RequestError) -> Response:
        error = api_error(raised)
        if error.status == 403:
            audit_denied(error.message)
        return error_response(error.status, error.code, error.message, error.headers)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 404 and (absent := find_absent_part(request.path)):
            headers = {ERROR_MESSAGE_HEADER: absent.message}
            return error_response(absent.status, CODES[absent.status], absent.message, headers)
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
