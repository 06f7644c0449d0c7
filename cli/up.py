"""`longshore up`: run everything on one machine, with a data directory of its own."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli.common import data_dir_option, port_option
from cli.ports import require_free_port
from cli.supervisor import Plan, run
from shared.encryption import ensure_key_file, load_keyring
from shared.file_lock import try_lock_file
from shared.settings import SettingsError, settings, unknown_settings

LOCK_FILE = "lock"
HOST_NETWORK_WARNING = (
    "WARNING: {variable}=host: {what} can reach every service of this machine and its network. Use it with source that "
    "you trust only."
)


def create_private(directory: Path) -> Path:
    """Create the directory if it does not exist, for its owner only, and return its absolute path.

    Raises:
        SettingsError: it cannot be created or written.
    """
    directory = directory.absolute()
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise SettingsError(f"LONGSHORE_DATA_DIR: {directory} cannot be used: {error.strerror}") from None
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory while the block runs. The kernel releases it when the process ends.

    Raises:
        SettingsError: another `longshore up` holds it.
    """
    with (directory / LOCK_FILE).open("a+") as file:
        if not try_lock_file(file):
            file.seek(0)
            raise SettingsError(
                f"Longshore runs in {directory} already (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another --data-dir."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@click.command("up")
@data_dir_option
@port_option("LONGSHORE_PORT", "Port of the one address; 0: any that is free")
def command() -> None:
    """Run everything on this machine, in the foreground, until Ctrl-C.

    Starts a Redis of its own (unless LONGSHORE_REDIS_URL names one), migrates the database to the newest schema,
    writes the first admin key to DIR/admin-key, and runs gateway, API, calls, git service, workers and beat. Processes
    that end are started again. A second Ctrl-C ends everything without waiting.

    \b
    DIR holds:
      longshore.db    the database (unless LONGSHORE_DATABASE_URL names another)
      repositories/   hosted source
      serving/        sockets of running algorithms
      secret-keys     the keys that encrypt stored passwords: back it up, apart from the database
      admin-key       the first admin key
    """
    configured = settings()
    for variable, advice in unknown_settings().items():
        click.echo(f"WARNING: {variable}: {advice}", err=True)
        del os.environ[variable]  # so that no process below warns of it again
    directory = create_private(configured.data_dir)
    os.environ["LONGSHORE_DATA_DIR"] = str(directory)
    with locked(directory):
        if not configured.secret_keys:
            ensure_key_file(directory)
        load_keyring(configured)
        port = require_free_port(configured.host, configured.port)
        for variable, network, what in (
            ("LONGSHORE_BUILD_NETWORK", configured.build_network, "what callers build"),
            ("LONGSHORE_SERVING_NETWORK", configured.serving_network, "what callers run"),
        ):
            if network == "host":
                click.echo(HOST_NETWORK_WARNING.format(variable=variable, what=what), err=True)
        as_json = configured.log_format == "json" or (configured.log_format == "auto" and not sys.stdout.isatty())
        sys.exit(asyncio.run(run(Plan(configured, directory, port, as_json))))
