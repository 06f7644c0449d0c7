"""What all tables share: the declarative base, ids and times."""

import uuid
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, Integer, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

from shared.db.clock import now_ms

Sequence = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
]
"""The order in which rows were made, given by the database: pages and "latest" go by it, never by a clock."""

Id = Annotated[str, mapped_column(String(36), unique=True, default=lambda: str(uuid.uuid4()))]
"""A UUID, the name of the row outside."""

Reference = Annotated[str, mapped_column(String(36), index=True)]
"""The UUID of a row of another table."""

Millis = Annotated[int, mapped_column(BigInteger)]
"""A time in milliseconds since 1970 by the database's clock."""

CreatedAt = Annotated[int, mapped_column(BigInteger, default=now_ms())]
"""The time at which the row was made."""

Document = Annotated[dict[str, Any], mapped_column(JSON, default=dict)]
"""A JSON object that is read and written whole."""


class Base(DeclarativeBase):
    """The base of every table."""
