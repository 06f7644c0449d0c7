"""Reading requests: one strict way from bytes to a model, and from a wrong request to a sentence."""

import json
import re
from typing import Any

from apiflask.schema_adapters.pydantic import PydanticAdapter
from apiflask.schema_adapters.registry import registry
from flask import Request
from pydantic import BaseModel, ValidationError

from api.error_codes import ApiError, Code
from shared.errors import InvalidInputError

MAX_PROBLEMS = 5
# In pydantic's words for these two, a text has "items" and our class names show.
LENGTH_OF_TEXT = re.compile(r"^Value should have at (most|least) (\d+) items? after validation, not")
CLASS_EXPECTED = re.compile(r"^Input should be a valid dictionary or instance of \w+$")


class StrictAdapter(PydanticAdapter):
    """Reads bodies and queries as the contract says; everything else is APIFlask's."""

    def validate_input(self, request: Request, location: str, **_kwargs: Any) -> BaseModel:
        """The model of a body or query.

        Raises:
            InvalidInputError, ApiError: the message says which fields are wrong, and how.
        """
        given = read_json_object(request) if location == "json" else request.args.to_dict()
        try:
            model: BaseModel = self.model_class.model_validate(given)
        except ValidationError as error:
            raise InvalidInputError(_sentence(error)) from None
        return model


def read_json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; no body at all stands for an empty one.

    Raises:
        ApiError: the content type is not JSON, or the body is invalid JSON.
        InvalidInputError: the body is no JSON object.
    """
    raw = request.get_data(cache=True)
    if not raw:
        return {}
    if request.mimetype and request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise ApiError(
            415,
            Code.INVALID_REQUEST,
            f"The body is {request.mimetype[:100]}; send JSON with Content-Type: application/json.",
        )
    try:
        given = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, Code.INVALID_JSON, f"The body is no valid JSON: {_without_quotes(error)}.") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidInputError("The body must be a JSON object.")
    return given


def install_strict_reading() -> None:
    """Have APIFlask read every request by `StrictAdapter`."""
    registry.register("pydantic", StrictAdapter)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _without_quotes(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _sentence(error: ValidationError) -> str:
    """What is wrong, field by field. What was sent is never repeated: it may be a password."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [f"{_place(problem['loc'])}: {_said(problem['msg'])}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return "; ".join(lines) + "."


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "body"


def _said(message: str) -> str:
    message = message.removeprefix("Value error, ")
    message = LENGTH_OF_TEXT.sub(r"Must have at \1 \2 characters, not", message)
    message = CLASS_EXPECTED.sub("Must be a JSON object", message)
    return message[:1].lower() + message[1:]
