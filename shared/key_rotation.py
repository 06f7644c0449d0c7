"""Key rotation: encrypts every sealed column again with the primary key, while the installation is in use."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.db.engine import Database
from shared.db.models import Algorithm, DefaultRegistry, Job, Registry, Webhook
from shared.encryption import DecryptionError, Keyring
from shared.git.sources import source_identity
from shared.git.webhook_secrets import webhook_identity
from shared.registries.credentials import default_identity, job_identity, push_account_identity, registry_identity
from shared.webhooks.signing import secret_identity

BATCH_SIZE = 50
"""Rows of one transaction: another writer of SQLite waits no longer than for these."""


@dataclass(frozen=True)
class SealedColumn:
    """A column with encrypted values, and the function that returns the identity of a row."""

    name: str
    model: type[Any]
    attribute: InstrumentedAttribute[Any]
    identity_of: Callable[[Any], str]


@dataclass
class RotationResult:
    """What a rotation changed and what it could not decrypt."""

    reencrypted: int = 0
    undecryptable: list[tuple[str, str, str]] = field(default_factory=list)
    """Column, row id and reason of each value that was left as it is."""


SEALED_COLUMNS = (
    SealedColumn("registries.credentials", Registry, Registry.credentials, registry_identity),
    SealedColumn("registries.push_credentials", Registry, Registry.push_credentials, push_account_identity),
    SealedColumn(
        "default_registries.push_credentials", DefaultRegistry, DefaultRegistry.push_credentials, default_identity
    ),
    SealedColumn("jobs.credentials", Job, Job.credentials, job_identity),
    SealedColumn(
        "algorithms.source_credentials", Algorithm, Algorithm.source_credentials, lambda row: source_identity(row.id)
    ),
    SealedColumn(
        "algorithms.webhook_secret", Algorithm, Algorithm.webhook_secret, lambda row: webhook_identity(row.id)
    ),
    SealedColumn("webhooks.secret", Webhook, Webhook.secret, lambda row: secret_identity(row.id)),
)


def count_outdated(database: Database, keyring: Keyring) -> int:
    """Return how many values are encrypted with another key than the primary one."""
    with database.reading() as session:
        return sum(
            session.scalar(select(func.count()).select_from(column.model).where(_is_outdated(column, keyring))) or 0
            for column in SEALED_COLUMNS
        )


def rotate(database: Database, keyring: Keyring, on_row: Callable[[], None] = lambda: None) -> RotationResult:
    """Encrypt every outdated value again with the primary key.

    A value that another process changes meanwhile keeps that change; if it is still outdated, the next rotation finds
    it. `on_row` is called after each row.
    """
    result = RotationResult()
    for column in SEALED_COLUMNS:
        for seqs in _batches(database, keyring, column):
            with database.writing() as session:
                for seq in seqs:
                    _rotate_row(session, keyring, column, seq, result)
                    on_row()
    return result


def _batches(database: Database, keyring: Keyring, column: SealedColumn) -> Iterator[list[int]]:
    last = 0
    while True:
        with database.reading() as session:
            seqs = list(
                session.scalars(
                    select(column.model.seq)
                    .where(_is_outdated(column, keyring), column.model.seq > last)
                    .order_by(column.model.seq)
                    .limit(BATCH_SIZE)
                )
            )
        if not seqs:
            return
        yield seqs
        last = seqs[-1]


def _is_outdated(column: SealedColumn, keyring: Keyring) -> Any:
    return column.attribute.is_not(None) & ~column.attribute.startswith(f"{keyring.primary_key_id}.", autoescape=True)


def _rotate_row(session: Session, keyring: Keyring, column: SealedColumn, seq: int, result: RotationResult) -> None:
    row = session.get(column.model, seq)
    old = None if row is None else getattr(row, column.attribute.key)
    if row is None or old is None:
        return  # deleted since it was listed
    try:
        identity = column.identity_of(row)
        new = keyring.encrypt(keyring.decrypt(old, identity=identity), identity=identity)
    except DecryptionError as error:
        result.undecryptable.append((column.name, row.id, str(error)))
        return
    values: dict[Any, Any] = {column.attribute: new}
    if not isinstance(row, Job):
        values[type(row).updated_at] = type(row).updated_at  # its content does not change
    # Compare and set: a value that was replaced meanwhile must not be overwritten with the old one.
    result.reencrypted += len(
        session.execute(
            update(column.model)
            .where(column.model.seq == seq, column.attribute == old)
            .values(values)
            .returning(column.model.seq)
            .execution_options(synchronize_session=False)
        ).all()
    )
