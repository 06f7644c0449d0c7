"""The declarative base of all tables, and the column types that they share."""

import uuid
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, Integer, String
from sqlalchemy.orm import DeclarativeBase, mapped_column

from shared.db.clock import now_ms

Sequence = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
]
"""The insertion order, assigned by the database. Pages and "latest" use it instead of a clock."""

Id = Annotated[str, mapped_column(String(36), unique=True, default=lambda: str(uuid.uuid4()))]
"""The UUID that identifies the row in the API."""

Reference = Annotated[str, mapped_column(String(36), index=True)]

Millis = Annotated[int, mapped_column(BigInteger)]
"""Milliseconds since 1970 (UTC) by the database's clock."""

CreatedAt = Annotated[int, mapped_column(BigInteger, default=now_ms())]

Document = Annotated[dict[str, Any], mapped_column(JSON, default=dict)]
"""A JSON object that is always read and written whole."""


class Base(DeclarativeBase):
    """The base of every table."""
