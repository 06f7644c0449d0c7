"""The declarative base of all tables, and the column types that they share."""

import uuid
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, Dialect, Integer, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typing_extensions import override

from shared.db.clock import now_ms
from shared.plain_text import plain_text


class PlainText(TypeDecorator[str]):
    """The type of messages and logs, which contain untrusted text: `plain_text` is applied when written and read."""

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else plain_text(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        # Rows of older versions can have control characters.
        return None if value is None else plain_text(value)


Reference = Annotated[str, mapped_column(String(36), index=True)]

Millis = Annotated[int, mapped_column(BigInteger)]
"""Milliseconds since 1970 (UTC) by the database's clock."""

CreatedAt = Annotated[int, mapped_column(BigInteger, default=now_ms())]

Document = Annotated[dict[str, Any], mapped_column(JSON, default=dict)]
"""A JSON object that is always read and written whole."""


class Base(DeclarativeBase):
    """The base of every table."""

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True, sort_order=-2
    )
    """The insertion order, assigned by the database. Pages and "latest" use it instead of a clock."""


class IdentifiedBase(Base):
    """The base of tables whose rows have an id in the API."""

    __abstract__ = True

    id: Mapped[str] = mapped_column(String(36), unique=True, default=lambda: str(uuid.uuid4()), sort_order=-1)
    """A UUID."""
