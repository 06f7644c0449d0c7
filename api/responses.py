"""JSON responses."""

from collections.abc import Sequence
from typing import Any

from flask import Response
from pydantic import BaseModel
from pydantic_core import to_json


def json_response(body: BaseModel | Sequence[Any] | dict[str, Any], status: int = 200) -> Response:
    if isinstance(body, BaseModel):
        return Response(body.model_dump_json(by_alias=True), status, mimetype="application/json")
    return Response(to_json(body, by_alias=True), status, mimetype="application/json")


def no_content() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response
