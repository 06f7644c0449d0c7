"""The `longshore` command. The module of a subcommand is imported only when it is called, to start fast."""

import importlib
import os
from typing import Any

import click
from typing_extensions import override

from cli.errors import command_error

COMMANDS = {
    "up": ("cli.up", "Run everything on this machine, in the foreground."),
    "gateway": ("cli.gateway", "Run the gateway: one address before API, calls and git service."),
    "api": ("cli.api", "Run the HTTP interface."),
    "calls": ("cli.calls", "Run the service that calls algorithms."),
    "git": ("cli.git", "Run the service of hosted git repositories."),
    "worker": ("cli.worker", "Run a worker on one or more queues."),
    "beat": ("cli.beat", "Run the scheduler of periodic tasks."),
    "firewall": ("cli.firewall", "Keep the firewall's rules of Longshore's Docker networks."),
    "migrate": ("cli.migrate", "Bring the database to the newest schema."),
    "environments": ("cli.environments", "Show the environments that algorithms can be built in."),
    "registries": ("cli.registries", "Show the state of registries, pause and resume them."),
    "pushes": ("cli.pushes", "List pushes, stalled ones among them, and repeat failed ones."),
    "nodes": ("cli.nodes", "Make worker nodes, or running instances, pull their images again."),
    "audit": ("cli.audit", "Show who did what, when, from where."),
    "keys": ("cli.keys", "Make, list and revoke API keys."),
    "secrets": ("cli.secrets", "Make and rotate the keys that encrypt stored passwords."),
    "settings": ("cli.settings", "Show every setting, its meaning, default and present value."),
}


class Commands(click.Group):
    """Imports subcommands when they are called, and shows errors that an operator can fix as a sentence."""

    @override
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    @override
    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, meaning) for name, (_module, meaning) in COMMANDS.items()])

    @override
    def invoke(self, ctx: click.Context) -> Any:
        os.umask(0o077)  # databases, repositories, images and keys are for the account alone
        try:
            return super().invoke(ctx)
        except Exception as error:
            shown = command_error(error)
            if shown is None:
                raise
            raise shown from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="longshore", message="%(prog)s %(version)s")
def group() -> None:
    """Build algorithm images and push them to your own registries.

    `longshore up` runs everything on one machine. The other commands are its parts, for several machines;
    they are set up by LONGSHORE_* variables, which `longshore settings` explains.
    """


def main() -> None:
    group(prog_name="longshore")


if __name__ == "__main__":
    main()
