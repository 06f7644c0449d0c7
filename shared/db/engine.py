"""The database: short transactions on SQLite or PostgreSQL, read or write."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, Row, Select, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

from shared.settings import settings

BUSY_MILLISECONDS = 20_000
ANSWERS_OR_IS_AWAY = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How soon a server counts as away that a network has swallowed (libpq, connection parameters): in seconds, the last in
milliseconds."""
POOL = {"pool_size": 5, "max_overflow": 35, "pool_timeout": 10}
"""More connections than a process has threads: those beyond the first five are closed when they are not needed."""


PING_AFTER_SECONDS = 1.0
"""A connection that rested for so long is asked whether it still leads anywhere."""


class Database:
    """One pool of connections; `reading` and `writing` are the only ways in, and neither may span slow work."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)
        # SQLite takes its write lock at BEGIN, so that two writers queue up instead of failing at their first write.
        self._writer = self.engine.execution_options(begin_immediate=True)
        # One query has one moment by itself: BEGIN and ROLLBACK around it would be two more round trips.
        alone = {"no_begin": True} if self.engine.dialect.name == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        self._asker = self.engine.execution_options(**alone)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for queries; whatever it changed is rolled back."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose changes are committed when the block ends, and rolled back when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def before(self, session: Session) -> Iterator[Session]:
        """A session for what a writing one needs to know before it locks anything.

        SQLite has one transaction that writes at a time, and it should be short: there it is another session.
        """
        if self.engine.dialect.name != "sqlite":
            yield session
            return
        with self.reading() as aside:
            yield aside

    def ask(self, query: Select[Any], **values: Any) -> Sequence[Row[Any]]:
        """The rows of one query that changes nothing, outside of any transaction.

        What is asked at every request is made once, with `bindparam` for the `values`: to make a statement takes longer
        than to run it.
        """
        with self._asker.connect() as connection:
            return connection.execute(query, values).all()

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it gave none.
        """
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def forget_connections(self) -> None:
        """After a fork: leave the parent's connections to the parent."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@cache
def database() -> Database:
    """The database of this process, by its settings."""
    return Database(settings().resolved_database_url)


def _create_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(parsed, connect_args=ANSWERS_OR_IS_AWAY, **POOL)
        event.listen(engine, "checkin", _note_rest)
        event.listen(engine, "checkout", _ping_rested)
        return engine
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _note_rest(_connection: Any, record: Any) -> None:
    record.info["rests_since"] = time.monotonic()


def _ping_rested(connection: Any, record: Any, _proxy: Any) -> None:
    """What `pool_pre_ping` does, but not again for a connection that answered a moment ago."""
    if time.monotonic() - record.info.get("rests_since", time.monotonic()) < PING_AFTER_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error:
        # The server was started anew, or the network dropped it: so are all others that rested as long.
        raise InvalidatePoolError("it rested too long") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours to say, see _begin_sqlite
    # busy_timeout first: switching to WAL needs a lock that another process may hold.
    for pragma in (f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    options = connection.get_execution_options()
    if not options.get("no_begin"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("begin_immediate") else "BEGIN")
