"""Blueprints and responses of the v1 API, routes below an algorithm, and the forms in which clients write addresses.

An algorithm is named OWNER/NAME or by its UUID. A UUID is never read as an owner: no owner has a name of that form.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from apiflask import APIBlueprint
from apiflask.schema_adapters.registry import registry
from flask import Response
from pydantic import BaseModel
from pydantic_core import to_json
from werkzeug.routing import BaseConverter

from api.request_parsing import StrictAdapter
from api.schemas.patterns import ROUTED_NAMES, UUID

CALLS_PREFIX = "/v1/algo/"
_BEFORE_ALGORITHM = re.compile(rf"\A{CALLS_PREFIX}/*(?:algo:/+)?")
"""The client for Node.js sends `algo://OWNER/NAME`, or what else its user names an algorithm by, unchanged."""


class OwnerConverter(BaseConverter):
    """Matches an owner where another route takes the id of an algorithm: everything but a UUID."""

    regex = f"(?!{UUID.strip('^$')}(?:/|$))[^/]+"


class AlgorithmIdConverter(BaseConverter):
    """Matches the id of an algorithm where another route takes a name."""

    regex = UUID.strip("^$")


View = TypeVar("View", bound=Callable[..., Any])


def normalize_path(path: str) -> str:
    """Return the path of a request to the v1 API in the form that its routes have.

    Clients send a slash at the end, also for a version that was left blank (`/v1/algo/OWNER/NAME/`), and
    `/v1/algo/algo://OWNER/NAME`.
    """
    if not path.startswith("/v1/"):
        return path
    return _BEFORE_ALGORITHM.sub(CALLS_PREFIX, path).rstrip("/")


def with_normalized_paths(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return a WSGI application that gets the paths of requests as `normalize_path` returns them."""

    def normalized(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return application({**environ, "PATH_INFO": normalize_path(environ.get("PATH_INFO", ""))}, start_response)

    return normalized


def v1_blueprint(name: str) -> APIBlueprint:
    registry.register("pydantic", StrictAdapter)  # before the first `input` of a blueprint
    blueprint = APIBlueprint(name, __name__, url_prefix="/v1", tag=name.capitalize())
    blueprint.url_value_preprocessor(_name_algorithm)
    return blueprint


def algorithm_route(blueprint: APIBlueprint, path: str, methods: list[str]) -> Callable[[View], View]:
    """Route `path` below an algorithm. The view gets its name or id as `algorithm_name`.

    `/algorithms/X/NAME` is the algorithm NAME of the owner X, unless X is a UUID or no algorithm may have that name.
    """
    is_reserved = path.strip("/").partition("/")[0] in ("", *ROUTED_NAMES)
    by_id = "/algorithms/<algorithm_id>" if is_reserved else "/algorithms/<algorithm_id:algorithm_id>"

    def decorate(view: View) -> View:
        for prefix in ("/algorithms/<owner:owner>/<name>", by_id):
            blueprint.add_url_rule(f"{prefix}{path}", view_func=view, methods=methods)
        return view

    return decorate


def list_of(model: type[BaseModel]) -> Any:
    """Return the type of an array of a model for APIFlask's `output`, whose type hints do not allow it."""
    return list[model]  # type: ignore[valid-type]


def _name_algorithm(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if not values:
        return
    if "name" in values:
        values["algorithm_name"] = f"{values.pop('owner')}/{values.pop('name')}"
    elif "algorithm_id" in values:
        values["algorithm_name"] = values.pop("algorithm_id")


def json_response(body: BaseModel | Sequence[Any] | dict[str, Any], status: int = 200) -> Response:
    if isinstance(body, BaseModel):
        return Response(body.model_dump_json(by_alias=True), status, mimetype="application/json")
    return Response(to_json(body, by_alias=True), status, mimetype="application/json")


def no_content() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response
