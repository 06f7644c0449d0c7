"""`Allow`: the methods that an address takes.

Routes overlap: `/v1/algorithms/X` is an owner's for POST and an algorithm's for the rest. What X looks like decides.
"""

from collections.abc import Mapping
from typing import Any

from flask import Response
from flask.globals import request_ctx

from api.schemas.patterns import is_written_so


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
