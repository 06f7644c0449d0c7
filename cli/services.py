"""What the commands that touch the running system need: a migrated database, keys, a Redis that is named."""

from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from cli.migrating import require_migrated
from cli.starting import start
from shared.database import Database, database
from shared.sealing import keyring
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
