"""`longshore secrets`: the keys that seal stored passwords."""

import click
from rich.console import Console
from rich.progress import Progress

from cli.audit import operator
from cli.common import data_dir_option, start
from cli.errors import CommandError
from cli.runtime import open_database
from shared.audit import record
from shared.encryption import keyring, new_key
from shared.key_rotation import count_outdated, rotate


@click.group("secrets")
def command() -> None:
    """Make and rotate the keys that seal stored passwords (LONGSHORE_SECRET_KEYS).

    \b
    To change the key while everything runs:
      1. make one: longshore secrets new-key
      2. add it at the END of LONGSHORE_SECRET_KEYS (or of the file secret-keys in the data
         directory) everywhere, and restart: now every process can open what it seals
      3. move it to the FRONT everywhere, and restart: now every process seals with it
      4. longshore secrets rotate
      5. a day later (idempotency keys live so long) remove the old key everywhere, and restart
    """


@command.command("new-key")
def print_new_key() -> None:
    """Print a fresh key as LONGSHORE_SECRET_KEYS takes it. Nothing is changed."""
    click.echo(new_key())


@command.command("rotate")
@data_dir_option
def rotate_keys() -> None:
    """Seal everything that another key sealed again with the first key.

    In small transactions, while everything runs; it can be interrupted and run again. Ends with status 1 if
    something could not be opened: keep the old keys then.
    """
    start("secrets")
    keys, database = keyring(), open_database()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sealing again", total=count_outdated(database, keys))
        rotated = rotate(database, keys, lambda: progress.advance(bar))
    with database.writing() as session:
        record(session, operator(), "secrets.rotate", keys.primary_key_id, resealed=rotated.reencrypted)
    click.echo(f"{rotated.reencrypted} sealed again with key {keys.primary_key_id}.")
    for column, row_id, reason in rotated.undecryptable:
        click.echo(f"not opened: {column} of {row_id}: {reason}", err=True)
    if rotated.undecryptable:
        raise CommandError(
            f"{len(rotated.undecryptable)} could not be opened and were left as they are; keep the old keys."
        )
    if left := count_outdated(database, keys):
        raise CommandError(
            f"{left} were sealed with another key meanwhile: a process still runs with the old order of keys. "
            "Restart it, then rotate again."
        )
