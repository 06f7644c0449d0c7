"""`longshore up`: run everything on one machine, with a data directory of its own."""

import asyncio
import os
import sys

import click

from cli.common import data_dir_option, echo, port_option
from cli.data_directory import locked, open_data_directory
from cli.ports import require_free_port
from cli.supervisor import Plan, run
from shared.encryption import ensure_key_file, load_keyring
from shared.net.address_rules import is_loopback_host
from shared.settings import settings, unknown_settings

HOST_NETWORK_WARNING = (
    "WARNING: {variable}=host: {what} can reach every service of this machine and its network. Use it only with "
    "source that you trust."
)
PUBLIC_URL_WARNING = (
    "WARNING: LONGSHORE_PUBLIC_URL is not set, so links and clone URLs have the address of LONGSHORE_HOST: set it to "
    "the URL that callers use."
)


@click.command("up")
@data_dir_option
@port_option("LONGSHORE_PORT", "Port of the one address; 0: any that is free")
def command() -> None:
    """Run everything on this machine, in the foreground, until Ctrl-C.

    Starts a Redis of its own (unless LONGSHORE_REDIS_URL names one), migrates the database to the newest schema,
    writes the first admin key to DIR/admin-key, and runs gateway, API, calls, git service, workers and beat. Processes
    that end are started again. A second Ctrl-C ends everything without waiting.

    DIR is closed to all other accounts of this machine.

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
        echo(f"WARNING: {variable}: {advice}", err=True)
        del os.environ[variable]  # so that no process below warns of it again
    directory = open_data_directory(configured.data_dir)
    os.environ["LONGSHORE_DATA_DIR"] = str(directory)
    with locked(directory):
        if not configured.secret_keys:
            ensure_key_file(directory)
        load_keyring(configured)
        port = require_free_port(configured.host, configured.port)
        if not configured.public_url and not is_loopback_host(configured.host):
            click.echo(PUBLIC_URL_WARNING, err=True)
        for variable, network, what in (
            ("LONGSHORE_BUILD_NETWORK", configured.build_network, "what callers build"),
            ("LONGSHORE_SERVING_NETWORK", configured.serving_network, "what callers run"),
        ):
            if network == "host":
                click.echo(HOST_NETWORK_WARNING.format(variable=variable, what=what), err=True)
        as_json = configured.log_format == "json" or (configured.log_format == "auto" and not sys.stdout.isatty())
        sys.exit(asyncio.run(run(Plan(configured, directory, port, as_json))))
