"""Errors that an operator can fix: a sentence and an exit status, 2 for an invalid setting, 1 for others."""

import sys
from typing import IO, Any

import click
from typing_extensions import override

from shared.errors import RequestError
from shared.plain_text import plain_text
from shared.settings import SettingsError


class CommandError(click.ClickException):
    """Raised when a command failed. The message says why and what to do."""

    exit_code = 1

    @override
    def show(self, file: IO[Any] | None = None) -> None:
        for line in plain_text(self.message).splitlines():
            click.echo(f"longshore: {line}", file=file, err=file is None)


class InvalidSettingError(CommandError):
    """Raised when a setting is invalid or missing. The message names it."""

    exit_code = 2


def command_error(error: Exception) -> CommandError | None:
    """Return the error to show instead of a traceback; None for a bug, whose traceback is shown."""
    if isinstance(error, SettingsError):
        return InvalidSettingError(str(error))
    if isinstance(error, RequestError):
        return CommandError(error.message)
    # Not imported here: a command that did not import SQLAlchemy cannot raise its errors.
    sqlalchemy_errors = sys.modules.get("sqlalchemy.exc")
    if sqlalchemy_errors and isinstance(error, sqlalchemy_errors.OperationalError | sqlalchemy_errors.InterfaceError):
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        return CommandError(f"The database does not answer: {reason}")
    return None
