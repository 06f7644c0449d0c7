"""`longshore secrets`: make and rotate the keys that encrypt stored passwords."""

import click
from rich.console import Console
from rich.progress import Progress

from cli.audit import operator
from cli.common import data_dir_option, echo, set_up
from cli.errors import CommandError
from cli.runtime import open_database
from shared.audit import record
from shared.encryption import keyring, new_key
from shared.key_rotation import count_outdated, rotate


@click.group("secrets")
def command() -> None:
    """Make and rotate the keys that encrypt stored passwords (LONGSHORE_SECRET_KEYS).

    \b
    To change the key while everything runs:
      1. make a new key: longshore secrets new-key
      2. add it at the END of LONGSHORE_SECRET_KEYS (or of the file secret-keys in the data
         directory) everywhere, and restart: now every process can decrypt with it
      3. move it to the FRONT everywhere, and restart: now every process encrypts with it
      4. longshore secrets rotate
      5. after a day (the lifetime of idempotency keys) remove the old key everywhere, and restart
    """


@command.command("new-key")
def print_new_key() -> None:
    """Print a new key in the form of LONGSHORE_SECRET_KEYS. Nothing is changed."""
    click.echo(new_key())


@command.command("rotate")
@data_dir_option
def rotate_keys() -> None:
    """Encrypt everything that another key encrypted again, with the first key.

    It works in small transactions while everything runs, and can be interrupted and run again. Exits with status 1 if
    something could not be decrypted: keep the old keys then.
    """
    set_up("secrets")
    keys, database = keyring(), open_database()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("encrypting again", total=count_outdated(database, keys))
        rotated = rotate(database, keys, lambda: progress.advance(bar))
    with database.writing() as session:
        record(session, operator(), "secrets.rotate", keys.primary_key_id, resealed=rotated.reencrypted)
    click.echo(f"{rotated.reencrypted} encrypted again with key {keys.primary_key_id}.")
    for column, row_id, reason in rotated.undecryptable:
        echo(f"not decrypted: {column} of {row_id}: {reason}", err=True)
    if rotated.undecryptable:
        raise CommandError(
            f"{len(rotated.undecryptable)} could not be decrypted and were not changed; keep the old keys."
        )
    if outdated := count_outdated(database, keys):
        raise CommandError(
            f"{outdated} were encrypted with another key meanwhile: a process still runs with the old order of keys. "
            "Restart it, then rotate again."
        )
