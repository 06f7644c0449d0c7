"""Times: taken from the database's clock, stored as milliseconds since 1970 (UTC), shown as RFC 3339.

Leases of workers on many machines must be compared by a single clock. Integers behave the same in SQLite and
PostgreSQL; interval arithmetic does not.
"""

from datetime import UTC, datetime
from typing import Any, overload

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class now_ms(FunctionElement[int]):  # noqa: N801 - named as an SQL function
    """SQL expression for the database's clock in milliseconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _now_postgresql(_element: now_ms, _compiler: SQLCompiler, **_kw: Any) -> str:
    # Not now(), which is the start of the transaction: it may have waited long for a lock.
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _now_sqlite(_element: now_ms, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


@overload
def rfc3339(milliseconds: int) -> str: ...
@overload
def rfc3339(milliseconds: int | None) -> str | None: ...
def rfc3339(milliseconds: int | None) -> str | None:
    """Return the time as the API shows it: RFC 3339 in UTC with milliseconds and `Z`; None stays None."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC).replace(tzinfo=None).isoformat()}.{rest:03d}Z"
