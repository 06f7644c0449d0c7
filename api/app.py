"""The Flask application of the v1 interface.

`Allow`: the methods that an address takes.

Routes overlap: `/v1/algorithms/X` is an owner's for POST and an algorithm's for the rest. What X looks like decides.
"""

import re
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import structlog
from apiflask import APIFlask
from flask import Response, g, request, send_from_directory
from flask.globals import request_ctx
from swagger_ui_bundle import swagger_ui_path
from werkzeug.exceptions import HTTPException

from api.authentication import READING, authenticate, caller
from api.errors import register_errors
from api.openapi import complete
from api.proxy_headers import caller_address
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
from api.schemas.patterns import is_written_so
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
OPEN_ADDRESSES = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
GIVEN_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
SWAGGER_PATH = "/docs/static"


def create_app() -> APIFlask:
    """The application, by the settings of this process."""
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
    app.url_map.merge_slashes = False  # an address with // is none, instead of a redirect
    register_errors(app)
    app.before_request(_begin)
    app.after_request(_finish)
    for resource in RESOURCES:
        app.register_blueprint(resource.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    _serve_swagger(app)
    app.spec_processor(complete)  # type: ignore[arg-type]  # the document is JSON, so a dict
    return app


def _begin() -> None:
    """Name the request, refuse what can be stored nowhere, recognise the caller."""
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if GIVEN_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    if not request.path.startswith(OPEN_ADDRESSES):
        _recognise()
    if isinstance(request.routing_exception, HTTPException):
        raise request.routing_exception
    values = [request.path, *request.args.values(), *request.args.keys()]
    if any("\0" in value for value in values):
        raise InvalidInputError("An address cannot hold the character NUL.")


def _recognise() -> None:
    """Recognise the caller, and count its request."""
    try:
        authenticate()
    except RequestError:
        address = caller_address(request)
        rate_limits().count_unknown(address or "unknown")
        raise
    if request.method in READING:
        rate_limits().count_read(caller().key_id)
    elif request.path.startswith(calls.ADDRESS):
        rate_limits().count_call(caller().key_id)
    else:
        rate_limits().count_change(caller().key_id)


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["Cache-Control"] = "no-store"
    tell_allowed(response)
    return response


def _serve_swagger(app: APIFlask) -> None:
    """The pages at /docs need nothing from outside: an installation may have no way to the internet."""
    app.add_url_rule(
        f"{SWAGGER_PATH}/<path:filename>",
        "swagger",
        app.doc(hide=True)(lambda filename: send_from_directory(swagger_ui_path, filename)),
    )


def tell_allowed(response: Response) -> None:
    """Have an answer's `Allow` name the methods of the resource that the address can only mean."""
    adapter = request_ctx.url_adapter
    if "Allow" not in response.headers or adapter is None:
        return
    told = set(adapter.allowed_methods())
    meant = {method for method in told - {"OPTIONS"} if _fits(adapter.match(method=method)[1])}
    if meant:
        response.headers["Allow"] = ", ".join(sorted(meant | (told & {"OPTIONS"})))


def _fits(values: Mapping[str, Any]) -> bool:
    return all(is_written_so(name, value) for name, value in values.items())
