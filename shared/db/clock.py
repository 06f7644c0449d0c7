"""Time: reckoned by the database's clock, kept as whole milliseconds since 1970 (UTC), shown as RFC 3339.

Leases of workers on many machines are compared by one clock only, the database's; an integer is the same in
SQLite and PostgreSQL, where interval arithmetic is not.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock in milliseconds since 1970, as an SQL expression."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _now_postgresql(_element: now_ms, _compiler: SQLCompiler, **_kw: Any) -> str:
    # clock_timestamp(), not now(): a transaction that waited for a lock must not reckon with its own start.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _now_sqlite(_element: now_ms, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


def rfc3339(milliseconds: int | None) -> str | None:
    """A time as the API shows it: RFC 3339 in UTC with milliseconds and `Z`."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC).replace(tzinfo=None).isoformat()}.{rest:03d}Z"
