"""Pages of long lists: newest first, by an opaque marker."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import request
from pydantic import Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.error_codes import ApiError, Code
from api.proxy_headers import public_url
from api.schemas.base import Query

MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MARKER = re.compile("^[0-7][0-9a-f]{15}$")
"""A sequence number; opaque to callers, and of a form that the document can tell."""
EMPTY_TEXT: dict[str, Any] = {"type": "string", "maxLength": 0}
Row = TypeVar("Row")


class PageQuery(Query):
    """Which page of a list."""

    limit: str | None = Field(
        None,
        description=f"How many, 1 to {MAX_LIMIT}; {DEFAULT_LIMIT} if left out.",
        json_schema_extra={"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, EMPTY_TEXT]},
    )
    marker: str | None = Field(
        None,
        description="Where the page begins: the `marker` of the page before.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": MARKER.pattern}, EMPTY_TEXT]},
    )


def page_of(
    session: Session, query: Select[Any], order: InstrumentedAttribute[int], page: PageQuery
) -> tuple[Sequence[Any], str | None]:
    """The rows of a page, newest first, and the marker of the next one.

    Raises:
        ApiError: bad limit or bad marker.
    """
    limit = _limit(page.limit)
    if page.marker:
        query = query.where(order < _sequence(page.marker))
    rows = session.execute(query.order_by(order.desc()).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1][0]
    return rows[:limit], _marker(getattr(last, order.key))


def paged(results: Sequence[Any], marker: str | None) -> dict[str, Any]:
    """A page as the contract shapes it; marker and link are null on the last one."""
    link = None
    if marker is not None:
        parameters = {**request.args.to_dict(), "marker": marker}
        link = f"{public_url()}{request.path}?{urlencode(parameters)}"
    return {"marker": marker, "next_link": link, "results": results}


def _limit(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise ApiError(400, Code.BAD_LIMIT, f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def _marker(sequence: int) -> str:
    return f"{sequence:016x}"


def _sequence(marker: str) -> int:
    if not MARKER.fullmatch(marker):
        raise ApiError(400, Code.BAD_MARKER, "This marker is none of ours; take it from the page before.")
    return int(marker, 16)
