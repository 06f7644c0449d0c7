"""`longshore migrate`: migrate the database, and make the first admin key."""

import os
from pathlib import Path

import click
from sqlalchemy import exists, select

from cli.audit import operator
from cli.common import data_dir_option, set_up
from cli.runtime import migrate, open_database
from shared.audit import record
from shared.db.engine import Database
from shared.db.models import ApiKey, KeyKind
from shared.keys import create_key, create_owner
from shared.settings import SettingsError

OWNER = "admin"
LABEL = "first admin key"


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
    """Migrate the database to the newest schema.

    All missing migrations are applied in one transaction. It can run on several machines at the same time: one does
    it, the others wait and find nothing to do. `longshore up` does this itself.
    """
    set_up("migrate")
    database = open_database(migrated=False)
    before, after = migrate(database)
    if before == after:
        click.echo(f"The database is at migration {after} already.", err=True)
    else:
        click.echo(f"The database was migrated from {before or 'nothing'} to {after}.", err=True)
    if admin_key is not None and ensure_admin_key(database, admin_key):
        click.echo(f"The first admin key is in {admin_key}.", err=True)
    database.close()


def ensure_admin_key(database: Database, path: Path) -> bool:
    """Make an admin key and write it to `path`, readable by its owner only, unless an admin key exists.

    Return whether it was made.

    Raises:
        SettingsError: the file cannot be written; then no key is made.
    """
    with database.writing() as session:
        if session.scalar(select(exists().where(ApiKey.kind == KeyKind.ADMIN, ApiKey.revoked_at.is_(None)))):
            return False
        owner = create_owner(session, OWNER)
        key, secret = create_key(session, owner.username, label=LABEL, kind=KeyKind.ADMIN)
        record(session, operator(), "key.create", key.id, owner=owner.username, kind=key.kind, label=LABEL)
        # Before the commit: a key whose secret is lost would be worse than a file without a valid key.
        try:
            _write_private(path, secret)
        except OSError as error:
            raise SettingsError(f"The admin key cannot be written to {path}: {error.strerror}") from None
    return True


def _write_private(path: Path, secret: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    temporary.replace(path)
