"""Routes under an algorithm, in both spellings: OWNER/NAME and UUID."""

from collections.abc import Callable
from typing import Any, TypeVar

from apiflask import APIBlueprint
from pydantic import BaseModel
from werkzeug.routing import BaseConverter

from api.request_parsing import install_strict_reading
from api.schemas.patterns import UUID


class OwnerConverter(BaseConverter):
    """An owner where an algorithm's id may stand for other methods: whatever is no UUID."""

    regex = f"(?!{UUID.strip('^$')}(?:/|$))[^/]+"


class AlgorithmIdConverter(BaseConverter):
    """An algorithm's id where a name could stand too."""

    regex = UUID.strip("^$")


View = TypeVar("View", bound=Callable[..., Any])


def v1_blueprint(name: str) -> APIBlueprint:
    """A part of the v1 interface."""
    install_strict_reading()  # before the first `input` of the blueprint
    blueprint = APIBlueprint(name, __name__, url_prefix="/v1", tag=name.capitalize())
    blueprint.url_value_preprocessor(_name_algorithm)
    return blueprint


def algorithm_route(blueprint: APIBlueprint, path: str, methods: list[str]) -> Callable[[View], View]:
    """Route `path` below an algorithm; the view gets the algorithm's name as `algorithm`."""

    def decorate(view: View) -> View:
        for prefix in ("/algorithms/<owner>/<name>", "/algorithms/<algorithm_id>"):
            blueprint.add_url_rule(f"{prefix}{path}", view_func=view, methods=methods)
        return view

    return decorate


def list_of(model: type[BaseModel]) -> Any:
    """A plain array of a model, as APIFlask's `output` takes it (its type hints leave it out)."""
    return list[model]  # type: ignore[valid-type]


def _name_algorithm(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if not values:
        return
    if "name" in values:
        values["algorithm"] = f"{values.pop('owner')}/{values.pop('name')}"
    elif "algorithm_id" in values:
        values["algorithm"] = values.pop("algorithm_id")
