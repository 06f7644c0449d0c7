"""Set the environment of a test: data directory, key and other settings, for this process and its children."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.dispatch import producer
from api.invocation.call_errors import call_errors
from api.owner_slots import call_slots, push_wait_slots, remote_slots, wait_slots
from api.rate_limits import _rate_limits_of
from shared.db.engine import database
from shared.db.models import Base
from shared.encryption import keyring, new_key
from shared.net.address_rules import (
    index_networks,
    registry_networks,
    source_networks,
    source_trusted_networks,
    webhook_networks,
)
from shared.settings import settings


@contextmanager
def longshore_environment(directory: Path, *, tables: bool = True, **variables: object) -> Iterator[Path]:
    """Use new settings, database, keyring and message producer, on `directory`, during the block.

    `variables` are settings by field name (`source_max_bytes=1024`). With `tables` the database's tables are created.
    """
    environment = {
        "LONGSHORE_DATA_DIR": str(directory),
        "LONGSHORE_SECRET_KEYS": new_key(),
        # No server listens there: sending a message fails immediately, which is harmless.
        "LONGSHORE_REDIS_URL": "redis://127.0.0.1:1/0",
        # The repositories of tests are on this machine.
        "LONGSHORE_SOURCE_NETWORKS": "0.0.0.0/0,::/0",
        "LONGSHORE_SOURCE_TRUSTED_NETWORKS": "127.0.0.0/8,::1/128",
    } | {f"LONGSHORE_{name.upper()}": str(value) for name, value in variables.items()}
    before = {name: value for name, value in os.environ.items() if name.startswith("LONGSHORE_")}
    _replace_variables(environment)
    try:
        if tables:
            Base.metadata.create_all(database().engine)
        yield directory
    finally:
        if database.cache_info().currsize:
            call_errors.write()  # otherwise its thread would write them into the next test's database
            database().close()
        _replace_variables(before)


def _replace_variables(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("LONGSHORE_")]:
        del os.environ[name]
    os.environ.update(variables)
    for cached in (
        settings,
        database,
        keyring,
        producer,
        index_networks,
        registry_networks,
        source_networks,
        source_trusted_networks,
        webhook_networks,
        call_slots,
        push_wait_slots,
        remote_slots,
        wait_slots,
        _rate_limits_of,
    ):
        cached.cache_clear()  # each was made with the settings of another test
