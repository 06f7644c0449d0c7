"""`longshore up`: run everything on one machine."""

import asyncio
import os
import sys

import click

from cli.common import data_dir_option, port_option
from cli.data_directory import create_private, locked
from cli.ports import require_free_port
from cli.supervisor import Plan, run
from shared.encryption import ensure_key_file, load_keyring
from shared.settings import settings

HOST_NETWORK_WARNING = (
    "WARNING: LONGSHORE_BUILD_NETWORK=host: what callers build can reach every service of this machine and its "
    "network. Use it with source that you trust only."
)


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
    directory = create_private(configured.data_dir)
    os.environ["LONGSHORE_DATA_DIR"] = str(directory)
    with locked(directory):
        if not configured.secret_keys:
            ensure_key_file(directory)
        load_keyring(configured)
        port = require_free_port(configured.host, configured.port)
        if configured.build_network == "host":
            click.echo(HOST_NETWORK_WARNING, err=True)
        as_json = configured.log_format == "json" or (configured.log_format == "auto" and not sys.stdout.isatty())
        sys.exit(asyncio.run(run(Plan(configured, directory, port, as_json))))
