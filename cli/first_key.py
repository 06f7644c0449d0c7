"""The first admin key, without which nobody could make another."""

import os
from pathlib import Path

from sqlalchemy import exists, select

from cli.audit import operator
from shared.audit import record
from shared.database import Database
from shared.keys import create_key, create_owner
from shared.models import ApiKey, KeyKind
from shared.settings import SettingsError

OWNER = "admin"
LABEL = "first admin key"


def ensure_admin_key(database: Database, path: Path) -> bool:
    """Make an admin key and write it to `path`, readable by its owner only, unless an admin key exists.

    Raises:
        SettingsError: the file cannot be written; then no key was made.
    """
    with database.writing() as session:
        if session.scalar(select(exists().where(ApiKey.kind == KeyKind.ADMIN, ApiKey.revoked_at.is_(None)))):
            return False
        owner = create_owner(session, OWNER)
        key, secret = create_key(session, owner.username, label=LABEL, kind=KeyKind.ADMIN)
        record(session, operator(), "key.create", key.id, owner=owner.username, kind=key.kind, label=LABEL)
        # Before the commit: a key that nobody could read would be worse than a file whose key was never made.
        try:
            _write_private(path, secret)
        except OSError as error:
            raise SettingsError(f"The admin key cannot be written to {path}: {error.strerror}") from None
    return True


def _write_private(path: Path, secret: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    fresh.replace(path)
