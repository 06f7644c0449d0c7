"""The Flask application of the v1 API.

Routes overlap: `/v1/algorithms/X` means an owner for POST and an algorithm for other methods. The form of X decides,
and the `Allow` header names only the methods that fit it.
"""

import re
import uuid
from importlib.metadata import version

import structlog
from apiflask import APIFlask
from flask import Response, g, request, send_from_directory
from flask.globals import request_ctx
from swagger_ui_bundle import swagger_ui_path
from werkzeug.exceptions import HTTPException

from api.authentication import READ_METHODS, authenticate, caller
from api.errors import register_errors
from api.openapi import complete_document
from api.proxy_headers import client_address
from api.rate_limits import rate_limits
from api.resources import (
    algorithms,
    audit,
    builds,
    calls,
    health,
    jobs,
    keys,
    metrics,
    nodes,
    pulls,
    pushes,
    registries,
    retries,
    versions,
    webhooks,
)
from api.routing import AlgorithmIdConverter, OwnerConverter
from api.schemas.base import ErrorResponse
from api.schemas.patterns import matches_path_parameter
from shared.errors import InvalidInputError, RequestError
from shared.settings import settings

RESOURCES = (
    registries,
    keys,
    algorithms,
    versions,
    builds,
    pushes,
    pulls,
    retries,
    jobs,
    calls,
    nodes,
    webhooks,
    audit,
)
PUBLIC_PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{8,64}")
SWAGGER_PATH = "/docs/static"


def create_app() -> APIFlask:
    """Return the application, configured by the settings of this process."""
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
        SWAGGER_UI_CSS=f"{SWAGGER_PATH}/swagger-ui.css",
        SWAGGER_UI_BUNDLE_JS=f"{SWAGGER_PATH}/swagger-ui-bundle.js",
        SWAGGER_UI_STANDALONE_PRESET_JS=f"{SWAGGER_PATH}/swagger-ui-standalone-preset.js",
        DOCS_FAVICON=f"{SWAGGER_PATH}/favicon-32x32.png",
    )
    app.json_errors = False
    app.url_map.converters["owner"] = OwnerConverter
    app.url_map.converters["algorithm_id"] = AlgorithmIdConverter
    app.url_map.merge_slashes = False  # a path with // is unknown, not redirected
    register_errors(app)
    app.before_request(_before_request)
    app.after_request(_after_request)
    for resource in (*RESOURCES, health, metrics):
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
    """Give the request an id, authenticate its caller, and reject paths that no database can store."""
    client_id = request.headers.get("X-Request-Id", "")
    g.request_id = client_id if REQUEST_ID_PATTERN.fullmatch(client_id) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    if not request.path.startswith(PUBLIC_PATHS):
        _authenticate()
    if isinstance(request.routing_exception, HTTPException):
        raise request.routing_exception
    values = [request.path, *request.args.values(), *request.args.keys()]
    if any("\0" in value for value in values):
        raise InvalidInputError("A path or query cannot contain the character NUL.")


def _authenticate() -> None:
    """Authenticate the caller and count its request."""
    try:
        authenticate()
    except RequestError:
        rate_limits().count_unknown(client_address(request) or "unknown")
        raise
    if request.method in READ_METHODS:
        rate_limits().count_read(caller().key_id)
    elif request.path.startswith(calls.PATH_PREFIX):
        rate_limits().count_call(caller().key_id)
    else:
        rate_limits().count_change(caller().key_id)


def _after_request(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["Cache-Control"] = "no-store"
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
