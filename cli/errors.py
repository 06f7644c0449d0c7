"""What an operator can mend, as a sentence and an exit status: 2 for a wrong setting, 1 for anything else."""

import sys
from typing import IO, Any

import click

from shared.errors import RequestError
from shared.settings import SettingsError


class CommandError(click.ClickException):
    """The command could not do its work; the message says why and what to do."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence on standard error."""
        for line in self.message.splitlines():
            click.echo(f"longshore: {line}", file=file, err=file is None)


class SettingError(CommandError):
    """A setting is wrong or missing; the message names it."""

    exit_code = 2


def command_error(error: Exception) -> CommandError | None:
    """The failure to show for an error, or None for one that is a mistake of ours and keeps its traceback."""
    if isinstance(error, SettingsError):
        return SettingError(str(error))
    if isinstance(error, RequestError):
        return CommandError(error.message)
    if _is_database_away(error):
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        return CommandError(f"The database does not answer: {reason}")
    return None


def _is_database_away(error: Exception) -> bool:
    # Not imported here: whoever did not import SQLAlchemy cannot have its errors.
    module = sys.modules.get("sqlalchemy.exc")
    return module is not None and isinstance(error, module.OperationalError | module.InterfaceError)
