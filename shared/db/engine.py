"""The database: short read or write transactions on SQLite or PostgreSQL, and an insert-if-absent for both."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, Row, Select, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

from shared.db.models import Base
from shared.settings import settings

BUSY_MILLISECONDS = 20_000
CONNECTION_TIMEOUTS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How soon an unreachable PostgreSQL server is noticed (libpq parameters): seconds; the last one milliseconds."""
POOL = {"pool_size": 5, "max_overflow": 35, "pool_timeout": 10}
"""More connections than a process has threads. Those beyond the first five are closed after use."""
PING_AFTER_SECONDS = 1.0
"""A connection that was idle for this long is pinged before it is used again."""


class Database:
    """A pool of connections. Use `reading` and `writing`, and never across slow work (rule 6)."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)
        # SQLite takes the write lock at BEGIN, so that a second writer waits instead of failing at its first write.
        self._writer = self.engine.execution_options(begin_immediate=True)
        # A single query is consistent by itself: BEGIN and ROLLBACK would be two more round trips.
        alone = {"no_begin": True} if self.engine.dialect.name == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        self._asker = self.engine.execution_options(**alone)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for queries. Changes are rolled back."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session whose changes are committed at the end of the block, and rolled back if it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def before(self, session: Session) -> Iterator[Session]:
        """Open a session for the reads that a writing session needs before it locks rows.

        On SQLite this is another session, because only one transaction can write at a time and must be short.
        """
        if self.engine.dialect.name != "sqlite":
            yield session
            return
        with self.reading() as reader:
            yield reader

    def ask(self, query: Select[Any], **values: Any) -> Sequence[Row[Any]]:
        """Return the rows of one read-only query, outside of any transaction.

        Statements of hot paths are constants with a `bindparam` for each of `values`, because building a statement
        takes longer than running it.
        """
        with self._asker.connect() as connection:
            return connection.execute(query, values).all()

    def ping(self) -> None:
        """Run a trivial query.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not respond.
        """
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def forget_connections(self) -> None:
        """Drop the connections inherited by a fork without closing them: they belong to the parent."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        self.engine.dispose()


@cache
def database() -> Database:
    return Database(settings().resolved_database_url)


def _create_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(parsed, connect_args=CONNECTION_TIMEOUTS, **POOL)
        event.listen(engine, "checkin", _record_idle_since)
        event.listen(engine, "checkout", _ping_idle)
        return engine
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _record_idle_since(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _ping_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Ping as `pool_pre_ping` does, but skip a connection that was used a moment ago."""
    if time.monotonic() - record.info.get("idle_since", time.monotonic()) < PING_AFTER_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error:
        # The server restarted or the network dropped the connection: the other idle ones are dead too.
        raise InvalidatePoolError("an idle connection was closed") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite sends BEGIN itself
    # busy_timeout first: switching to WAL needs a lock that another process may hold.
    for pragma in (f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    options = connection.get_execution_options()
    if not options.get("no_begin"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("begin_immediate") else "BEGIN")


def insert_if_absent(session: Session, model: type[Base], unique: Sequence[str], **values: Any) -> bool:
    """Insert a row unless one has the same values in the `unique` columns. Return whether it was inserted."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return (
        session.execute(
            insert(model)
            .values(**values)
            .on_conflict_do_nothing(index_elements=list(unique))
            .returning(model.__table__.c.seq)
        ).first()
        is not None
    )
