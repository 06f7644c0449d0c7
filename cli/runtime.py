"""Open what the processes of the running system need: a migrated database, encryption keys, a Redis.

Migrations are applied once even if several processes start them at the same time, and checked when a process starts.
"""

import time

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

import migrations
from cli.common import set_up
from shared.db.engine import Database, database
from shared.encryption import keyring
from shared.settings import Settings, SettingsError

FIRST_CONNECTION_TIMEOUT_SECONDS = 20
RETRY_INTERVAL_SECONDS = 0.05
ADVISORY_LOCK = 7_310_420
"""The key of the lock that serialises migrations on PostgreSQL; any number that nothing else in the database uses."""


def open_database(*, migrated: bool = True) -> Database:
    """Open the database of the settings. With `migrated` it must be migrated already.

    Raises:
        SettingsError: its URL is invalid, or it is not migrated.
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
    """Set up a process of the running system: check that Redis, the encryption keys and a migrated database are set.

    Raises:
        SettingsError: one of them is missing.
    """
    configured = set_up(process)
    if not configured.redis_url:
        raise SettingsError(
            "LONGSHORE_REDIS_URL: must be set, for example redis://127.0.0.1:6379/0 "
            "(only `longshore up` starts a Redis of its own)"
        )
    keyring()
    open_database().close()  # before a fork, which SQLite's connections do not survive
    return configured


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, with the connection to use."""
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> tuple[str | None, str | None]:
    """Apply the missing migrations, all or none, and return the revisions before and after.

    A second process that migrates at the same time waits and finds nothing to do.

    Raises:
        SettingsError: a newer version of Longshore migrated the database.
    """
    _wait_for_connection(database)
    with database.writing() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":  # SQLite took its write lock at BEGIN
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        before = _revision(connection)
        if before is not None and before not in _known_revisions():
            raise SettingsError(
                f"The database is at migration {before}, which this version of Longshore does not know: "
                "a newer version made it. Run that version."
            )
        command.upgrade(configuration(connection), "head")
        return before, _revision(connection)


def require_migrated(database: Database) -> None:
    """Check that no migration is missing. A database that a newer version of Longshore migrated is accepted.

    Raises:
        SettingsError: `longshore migrate` must be run first.
    """
    with database.reading() as session:
        revision = _revision(session.connection())
    if revision is None:
        raise SettingsError("The database is empty: run `longshore migrate` first (is LONGSHORE_DATA_DIR right?).")
    known = _known_revisions()
    if revision in known and revision != known[0]:
        raise SettingsError(f"The database is at migration {revision} of {known[0]}: run `longshore migrate` first.")


def _wait_for_connection(database: Database) -> None:
    """Connect, and retry while SQLite reports that the file is locked.

    The first connections to a new file switch its journal to WAL. If two do so at the same time, one fails immediately.
    """
    deadline = time.monotonic() + FIRST_CONNECTION_TIMEOUT_SECONDS
    while True:
        try:
            database.ping()
        except OperationalError as error:
            if "database is locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_INTERVAL_SECONDS)
        else:
            return


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known_revisions() -> list[str]:
    """Return all revisions, newest first."""
    return [step.revision for step in ScriptDirectory.from_config(configuration()).walk_revisions()]
