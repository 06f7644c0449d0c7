"""Answers: a model, or a list of them, as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from flask import Response
from pydantic import BaseModel


def answer(shown: BaseModel | Sequence[Any] | dict[str, Any], status: int = 200) -> Response:
    """A response with what is shown."""
    if isinstance(shown, BaseModel):
        return Response(shown.model_dump_json(by_alias=True), status, mimetype="application/json")
    return Response(json.dumps(_plain(shown)), status, mimetype="application/json")


def nothing() -> Response:
    """204: done, nothing to say."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
