"""Answers: a model, or a list of them, as JSON."""

from collections.abc import Sequence
from typing import Any

from flask import Response
from pydantic import BaseModel
from pydantic_core import to_json


def json_response(shown: BaseModel | Sequence[Any] | dict[str, Any], status: int = 200) -> Response:
    """A response with what is shown."""
    if isinstance(shown, BaseModel):
        return Response(shown.model_dump_json(by_alias=True), status, mimetype="application/json")
    return Response(to_json(shown, by_alias=True), status, mimetype="application/json")


def no_content() -> Response:
    """204: done, nothing to say."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response
