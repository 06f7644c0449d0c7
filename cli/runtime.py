"""What the commands that touch the running system need: a migrated database, keys, a Redis that is named.

Migrations: applied once even when several processes ask at the same time, and checked before a process starts.
"""

import time

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

import migrations
from cli.common import start
from shared.db.engine import Database, database
from shared.encryption import keyring
from shared.settings import Settings, SettingsError


def open_database(*, migrated: bool = True) -> Database:
    """The database of the settings, which must be migrated unless that is what it is opened for.

    Raises:
        SettingsError: its URL cannot be used, or it is not migrated.
    """
    try:
        opened = database()
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise SettingsError(
            "LONGSHORE_DATABASE_URL: must be sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ) from None
    except OSError as error:
        raise SettingsError(f"LONGSHORE_DATA_DIR: {error.strerror}: {error.filename}") from None
    if migrated:
        require_migrated(opened)
    return opened


def start_service(process: str) -> Settings:
    """Start a process of the running system: its settings must name a Redis, a migrated database and sealing keys.

    Raises:
        SettingsError: one of them is missing.
    """
    configured = start(process)
    if not configured.redis_url:
        raise SettingsError(
            "LONGSHORE_REDIS_URL: must be set, for example redis://127.0.0.1:6379/0 "
            "(only `longshore up` starts a Redis of its own)"
        )
    keyring()
    open_database().close()  # before anything is forked: SQLite's connections do not survive it
    return configured


FIRST_CONNECTION_SECONDS = 20
ADVISORY_LOCK = 7_310_420
"""The number under which PostgreSQL keeps other migrations waiting; any that nobody else in the database uses."""


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, with the connection that it shall use."""
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> tuple[str | None, str | None]:
    """Apply the steps that are missing, all or none; the revision before and after.

    Whoever comes second waits and finds nothing to do.

    Raises:
        SettingsError: the database was made by a newer Longshore.
    """
    _connect_at_last(database)
    with database.writing() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":  # SQLite took its write lock at BEGIN
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        before = _revision(connection)
        if before is not None and before not in _known():
            raise SettingsError(
                f"The database is at migration {before}, which this Longshore does not know: a newer one made it. "
                "Run that one."
            )
        command.upgrade(configuration(connection), "head")
        return before, _revision(connection)


def require_migrated(database: Database) -> None:
    """Refuse a database whose migrations are missing. One that a newer Longshore migrated is taken as it is.

    Raises:
        SettingsError: `longshore migrate` is to be run first.
    """
    with database.reading() as session:
        revision = _revision(session.connection())
    if revision is None:
        raise SettingsError("The database is empty: run `longshore migrate` first (is LONGSHORE_DATA_DIR right?).")
    known = _known()
    if revision in known and revision != known[0]:
        raise SettingsError(f"The database is at migration {revision} of {known[0]}: run `longshore migrate` first.")


def _connect_at_last(database: Database) -> None:
    """Connect, again and again while SQLite says that the file is locked.

    The first connections to a new file switch its journal to WAL; where two do so at once, one is refused without
    waiting.
    """
    deadline = time.monotonic() + FIRST_CONNECTION_SECONDS
    while True:
        try:
            database.ping()
        except OperationalError as error:
            if "database is locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known() -> list[str]:
    """Every revision, newest first."""
    return [step.revision for step in ScriptDirectory.from_config(configuration()).walk_revisions()]
