"""Pages of long lists: newest first, by an opaque marker."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import request
from pydantic import Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.addresses import public_url
from api.schemas.base import Query
from shared.refusals import Code, bad_request

LARGEST = 100
DEFAULT = 50
LARGEST_SEQUENCE = 2**63 - 1
Row = TypeVar("Row")


class PageQuery(Query):
    """Which page of a list."""

    limit: str | None = Field(None, description=f"How many, 1 to {LARGEST}; {DEFAULT} if left out.")
    marker: str | None = Field(None, description="Where the page begins: the `marker` of the page before.")


def page_of(
    session: Session, query: Select[Any], order: InstrumentedAttribute[int], page: PageQuery
) -> tuple[Sequence[Any], str | None]:
    """The rows of a page, newest first, and the marker of the next one.

    Raises:
        Refusal: 400, bad limit (5003) or bad marker (5002).
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
        return DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LARGEST):
        raise bad_request(f"limit must be a whole number from 1 to {LARGEST}.", Code.BAD_LIMIT)
    return int(text)


def _marker(sequence: int) -> str:
    return base64.urlsafe_b64encode(f"after:{sequence}".encode()).decode().rstrip("=")


def _sequence(marker: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(marker.encode("ascii") + b"=" * (-len(marker) % 4))
        word, _, number = raw.decode("ascii").partition(":")
    except (binascii.Error, UnicodeError, ValueError):
        word, number = "", ""
    if word != "after" or not re.fullmatch(r"[0-9]{1,19}", number) or int(number) > LARGEST_SEQUENCE:
        raise bad_request("This marker is none of ours; take it from the page before.", Code.BAD_MARKER)
    return int(number)
