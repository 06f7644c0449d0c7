"""What every command does first: options that stand for variables, settings, logs.

Tables on a terminal, and wide enough that nothing is cut when they are piped somewhere.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.logging import configure_logs
from shared.settings import Settings, settings

Function = TypeVar("Function", bound=Callable[..., Any])


def data_dir_option(function: Function) -> Function:
    """The option --data-dir, which stands for LONGSHORE_DATA_DIR."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where one machine keeps everything; the same as LONGSHORE_DATA_DIR.",
        callback=lambda _ctx, _option, value: _set_variable("LONGSHORE_DATA_DIR", value),
        expose_value=False,
        is_eager=True,
    )(function)


def port_option(variable: str, meaning: str) -> Callable[[Function], Function]:
    """The option --port, which stands for the variable."""
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
    # Through the environment, so that the setting is checked as any other, and child processes have it too.
    if value is not None:
        os.environ[variable] = str(value)


def start(process: str) -> Settings:
    """Read the settings and set the logs up.

    Raises:
        SettingsError: a setting cannot be used.
    """
    configured = settings()
    configure_logs(configured, process=process)
    return configured


PIPED_WIDTH = 240


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Sequence[str] = ()) -> None:
    """Print rows under headings; the columns named in `whole` are never broken into lines."""
    table = Table()
    for heading in headings:
        table.add_column(heading, no_wrap=heading in whole, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    console.print(table)
