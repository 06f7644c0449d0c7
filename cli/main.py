"""The `longshore` command. Each subcommand's module is imported only when it is called: start-up time matters."""

import importlib
from typing import Any

import click

from cli.errors import command_error

COMMANDS = {
    "up": ("cli.up", "Run everything on this machine, in the foreground."),
    "gateway": ("cli.gateway", "Run the gateway: one address before API, calls and git service."),
    "api": ("cli.api", "Run the HTTP interface."),
    "calls": ("cli.calls", "Run the service that calls algorithms."),
    "git": ("cli.git", "Run the service of hosted git repositories."),
    "worker": ("cli.worker", "Run a worker on one or more queues."),
    "beat": ("cli.beat", "Run the clock that sends due work again and reports what stalls."),
    "migrate": ("cli.migrate", "Bring the database to the newest schema."),
    "registries": ("cli.registries", "See how registries take pushes, pause and resume them."),
    "pushes": ("cli.pushes", "List pushes, those that stall among them, and push again what failed."),
    "nodes": ("cli.nodes", "Have worker nodes, or what runs on them, pull afresh."),
    "audit": ("cli.audit", "Show who did what, when, from where."),
    "keys": ("cli.keys", "Make, list and revoke API keys."),
    "secrets": ("cli.secrets", "Make and rotate the keys that seal stored passwords."),
    "settings": ("cli.settings", "Show every setting, its meaning, default and present value."),
}


class Commands(click.Group):
    """The subcommands, imported by need; what an operator can mend ends with a sentence, not a traceback."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """The subcommand of this name, imported now."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of subcommands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, meaning) for name, (_module, meaning) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            failure = command_error(error)
            if failure is None:
                raise
            raise failure from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="longshore", message="%(prog)s %(version)s")
def group() -> None:
    """Build algorithm images and get them into your own registries.

    `longshore up` runs everything on one machine. The other commands are its parts, for several machines;
    they are set up by LONGSHORE_* variables, which `longshore settings` explains.
    """


def main() -> None:
    """The entry point of the command."""
    group(prog_name="longshore")


if __name__ == "__main__":
    main()
