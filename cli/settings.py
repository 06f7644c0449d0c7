"""`longshore settings`: show all settings and their values."""

import json

import click
from rich.console import Console
from rich.table import Table

from cli.common import data_dir_option, echo, plain_cell
from shared.settings import load_settings, unknown_settings


@click.command("settings")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@data_dir_option
def command(as_json: bool) -> None:
    """Show every setting: variable, meaning, default and present value.

    Values that can hold a password are shown as "(set)". DOCKER_HOST and the other variables of Docker have the
    same meaning as for Docker's own command.
    """
    rows = load_settings().described()
    for variable, advice in unknown_settings().items():
        echo(f"WARNING: {variable}: {advice}", err=True)
    if as_json:
        names = ("variable", "meaning", "default", "value")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return

    table = Table(title="Settings of Longshore", show_lines=True)
    table.add_column("Variable", no_wrap=True)
    table.add_column("Meaning", ratio=3)
    table.add_column("Default", ratio=1, overflow="fold")
    table.add_column("Present value", ratio=1, overflow="fold")
    for variable, meaning, default, present in rows:
        changed = "bold" if present != default else ""
        table.add_row(plain_cell(variable, changed), plain_cell(meaning), plain_cell(default), plain_cell(present))
    console = Console()
    if not console.is_terminal:  # wide enough that no name is cut
        console = Console(width=160)
    console.print(table)
