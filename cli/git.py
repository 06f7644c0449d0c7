"""`longshore git`: run the service of hosted git repositories."""

from shutil import which

import click

from api.git.app import create_app
from api.git.upkeep import upkeep
from cli.common import data_dir_option, port_option
from cli.errors import CommandError
from cli.runtime import start_service
from cli.wsgi import serve


@click.command("git")
@port_option("LONGSHORE_GIT_PORT", "Port to listen on")
@data_dir_option
def command() -> None:
    """Run the service of hosted git repositories (/git/OWNER/NAME.git).

    One of these runs, on the machine with the disk of the repositories (the data directory). It is a process of its
    own, so that a large push does not delay other requests.
    """
    if which("git") is None:
        raise CommandError("git is not installed; install it (Debian, Ubuntu: apt-get install git).")
    configured = start_service("git")
    # One process, which creates the application after the fork, because that starts a thread.
    serve(
        configured,
        create_app,
        port=configured.git_port,
        processes=1,
        threads=configured.git_threads,
        preload=False,
        on_shutdown=lambda _seconds: upkeep().stop(),
    )
