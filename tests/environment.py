"""Settings for a test: a directory, a key, and whatever else it names, for this process and those that it starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.dispatch import producer
from shared.db.engine import database
from shared.db.models import Base
from shared.encryption import keyring, new_key
from shared.net.address_rules import registry_networks, source_networks, webhook_networks
from shared.settings import settings


@contextmanager
def longshore_environment(directory: Path, *, tables: bool = True, **variables: object) -> Iterator[Path]:
    """While the block runs, settings, database, keyring and the sender of messages are fresh ones on `directory`.

    `variables` are settings by field name (`source_max_bytes=1024`). `tables`: the database's tables are made.
    """
    wanted = {
        "LONGSHORE_DATA_DIR": str(directory),
        "LONGSHORE_SECRET_KEYS": new_key(),
        # Nobody listens there: a message fails at once, which is harmless.
        "LONGSHORE_REDIS_URL": "redis://127.0.0.1:1/0",
    } | {f"LONGSHORE_{name.upper()}": str(value) for name, value in variables.items()}
    before = {name: value for name, value in os.environ.items() if name.startswith("LONGSHORE_")}
    _replace_variables(wanted)
    try:
        if tables:
            Base.metadata.create_all(database().engine)
        yield directory
    finally:
        if database.cache_info().currsize:
            database().close()
        _replace_variables(before)


def _replace_variables(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("LONGSHORE_")]:
        del os.environ[name]
    os.environ.update(variables)
    for cached in (settings, database, keyring, producer, registry_networks, source_networks, webhook_networks):
        cached.cache_clear()
