"""Pages of long lists, newest first. An opaque marker names the next page."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from flask import Response, request
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute, Session
from typing_extensions import override

from api.errors import ApiError, Code
from api.proxy_headers import public_url
from api.routing import json_response
from api.schemas.base import EMPTY_TEXT, Query, ResponseModel

MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MARKER = re.compile("^[0-7][0-9a-f]{15}$")
"""A sequence number; opaque to callers, and of a form that OpenAPI can describe."""
Item = TypeVar("Item", bound=BaseModel)
Row = TypeVar("Row")


class PageQuery(Query):
    """The requested page of a list."""

    limit: str | None = Field(
        None,
        description=f"The number of results, {DEFAULT_LIMIT} by default; above {MAX_LIMIT} it is {MAX_LIMIT}.",
        json_schema_extra={"anyOf": [{"type": "integer", "minimum": 1}, EMPTY_TEXT]},
    )
    marker: str | None = Field(
        None,
        description="The start of the page: the `marker` of the previous page.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": MARKER.pattern}, EMPTY_TEXT]},
    )


class Page(ResponseModel, Generic[Item]):
    """A page of a list. `marker` and `next_link` are null on the last page."""

    marker: str | None
    next_link: str | None
    results: list[Item]

    @classmethod
    @override
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return f"{params[0].__name__.removesuffix('Response')}Page"


def filters(*pairs: tuple[InstrumentedAttribute[Any], object]) -> list[ColumnElement[bool]]:
    """Return the conditions of a list query: each column equals its value, unless that is None."""
    return [column == value for column, value in pairs if value is not None]


def page_response(
    session: Session,
    rows: Select[tuple[Row]],
    order: InstrumentedAttribute[int],
    query: PageQuery,
    present: Callable[[list[Row]], Sequence[BaseModel]],
) -> Response:
    """Return a page of the rows, each as `present` shows it.

    Raises:
        ApiError: bad limit or bad marker.
    """
    page, marker = fetch_page(session, rows, order, query)
    return json_response(page_body(present([row[0] for row in page]), marker))


def fetch_page(
    session: Session, rows: Select[Any], order: InstrumentedAttribute[int], query: PageQuery
) -> tuple[Sequence[Any], str | None]:
    """Return the rows of a page, newest first, and the marker of the next one.

    Raises:
        ApiError: bad limit or bad marker.
    """
    limit = _parse_limit(query.limit or str(DEFAULT_LIMIT))
    if query.marker:
        if not MARKER.fullmatch(query.marker):
            raise ApiError(400, Code.BAD_MARKER, "This marker is invalid; take it from the previous page.")
        rows = rows.where(order < int(query.marker, 16))
    page = session.execute(rows.order_by(order.desc()).limit(limit + 1)).all()
    if len(page) <= limit:
        return page, None
    return page[:limit], f"{getattr(page[limit - 1][0], order.key):016x}"


def _parse_limit(text: str) -> int:
    digits = text.lstrip("0")
    if not (text.isascii() and digits.isdigit()):
        raise ApiError(
            400, Code.BAD_LIMIT, f"limit must be a whole number from 1 on; above {MAX_LIMIT} it is {MAX_LIMIT}."
        )
    return MAX_LIMIT if len(digits) > len(str(MAX_LIMIT)) else min(int(digits), MAX_LIMIT)


def page_body(results: Sequence[BaseModel], marker: str | None) -> dict[str, Any]:
    link = f"{public_url()}{request.path}?{urlencode({**request.args.to_dict(), 'marker': marker})}"
    return {"marker": marker, "next_link": None if marker is None else link, "results": results}
