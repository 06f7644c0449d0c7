"""Blueprints and responses of the v1 API, and routes below an algorithm, which is named OWNER/NAME or by its UUID."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from apiflask import APIBlueprint
from apiflask.schema_adapters.registry import registry
from flask import Response
from pydantic import BaseModel
from pydantic_core import to_json
from werkzeug.routing import BaseConverter

from api.request_parsing import StrictAdapter
from api.schemas.patterns import UUID


class OwnerConverter(BaseConverter):
    """Matches an owner where another route takes the id of an algorithm: everything but a UUID."""

    regex = f"(?!{UUID.strip('^$')}(?:/|$))[^/]+"


class AlgorithmIdConverter(BaseConverter):
    """Matches the id of an algorithm where another route takes a name."""

    regex = UUID.strip("^$")


View = TypeVar("View", bound=Callable[..., Any])


def v1_blueprint(name: str) -> APIBlueprint:
    registry.register("pydantic", StrictAdapter)  # before the first `input` of a blueprint
    blueprint = APIBlueprint(name, __name__, url_prefix="/v1", tag=name.capitalize())
    blueprint.url_value_preprocessor(_name_algorithm)
    return blueprint


def algorithm_route(blueprint: APIBlueprint, path: str, methods: list[str]) -> Callable[[View], View]:
    """Route `path` below an algorithm. The view gets its name or id as `algorithm_name`."""

    def decorate(view: View) -> View:
        for prefix in ("/algorithms/<owner>/<name>", "/algorithms/<algorithm_id>"):
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
