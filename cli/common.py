"""Parts of all commands: options that set variables, reading settings, setting up logs, printing tables."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.logging import configure_logs
from shared.plain_text import plain_text
from shared.settings import Settings, settings, unknown_settings

log = structlog.get_logger(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])

PIPED_WIDTH = 240
"""Characters of a table that is not printed on a terminal; enough that nothing is cut."""


def data_dir_option(function: Function) -> Function:
    """Add the option --data-dir, which sets LONGSHORE_DATA_DIR."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Directory for the data of one machine; the same as LONGSHORE_DATA_DIR.",
        callback=lambda _ctx, _option, value: _set_variable("LONGSHORE_DATA_DIR", value),
        expose_value=False,
        is_eager=True,
    )(function)


def port_option(variable: str, meaning: str) -> Callable[[Function], Function]:
    """Return the option --port, which sets the variable."""
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        metavar="N",
        help=f"{meaning}; the same as {variable}.",
        callback=lambda _ctx, _option, value: _set_variable(variable, value),
        expose_value=False,
        is_eager=True,
    )


def _set_variable(variable: str, value: object) -> None:
    # In the environment, so that the setting is checked like all others, and child processes get it too.
    if value is not None:
        os.environ[variable] = str(value)


def set_up(process: str) -> Settings:
    """Read the settings, configure the logs of this process, and warn of unknown variables.

    Raises:
        SettingsError: a setting is invalid.
    """
    configured = settings()
    configure_logs(configured, process=process)
    for variable, advice in unknown_settings().items():
        log.warning("unknown_setting", variable=variable, advice=advice)
    return configured


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, unwrapped: Sequence[str] = ()) -> None:
    """Print rows under headings. The cells of the columns in `unwrapped` stay on one line."""
    table = Table()
    for heading in headings:
        table.add_column(heading, no_wrap=heading in unwrapped, overflow="fold")
    for row in rows:
        table.add_row(*(plain_cell("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    console.print(table)


def plain_cell(text: str, style: str = "") -> Text:
    """Return a cell of a table with a plain text, in which markup and names of emojis are not interpreted."""
    return Text(plain_text(text), style)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text that may contain untrusted parts."""
    click.echo(plain_text(text), err=err)
