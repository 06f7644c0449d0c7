"""`longshore migrate`: the database's schema."""

from pathlib import Path

import click

from cli.first_key import ensure_admin_key
from cli.migrating import migrate
from cli.services import open_database
from cli.starting import data_dir_option, start


@click.command("migrate")
@click.option(
    "--admin-key",
    "admin_key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Then make the first admin key, unless there is one, and write it to FILE (mode 0600).",
)
@data_dir_option
def command(admin_key: Path | None) -> None:
    """Bring the database to the newest schema.

    All missing steps are applied in one transaction. It can run on several machines at once: one does it, the
    others wait and find nothing to do. `longshore up` does this by itself.
    """
    start("migrate")
    database = open_database(migrated=False)
    before, after = migrate(database)
    if before == after:
        click.echo(f"The database is at migration {after} already.", err=True)
    else:
        click.echo(f"The database was migrated from {before or 'nothing'} to {after}.", err=True)
    if admin_key is not None and ensure_admin_key(database, admin_key):
        click.echo(f"The first admin key is in {admin_key}.", err=True)
    database.close()
