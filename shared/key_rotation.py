"""Rotation of sealing keys: every sealed column is sealed again with the key that seals now, while everything runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.db.engine import Database
from shared.db.models import Algorithm, Job, Registry, Webhook
from shared.encryption import DecryptionError, Keyring
from shared.git.sources import open_source, seal_source
from shared.registries.rows import open_for_job, open_own, seal_for_job, seal_own
from shared.webhooks.signing import open_secret, seal_secret

BATCH = 50
"""Rows of one transaction: a writer of SQLite waits no longer than these take."""

Seal = Callable[[Keyring, Any], str]


@dataclass(frozen=True)
class SealedColumn:
    """A column that holds sealed values, and how one of its rows is opened and sealed again."""

    name: str
    model: type[Any]
    column: InstrumentedAttribute[Any]
    seal_again: Seal


@dataclass
class Rotated:
    """What a rotation did."""

    resealed: int = 0
    unopened: list[tuple[str, str, str]] = field(default_factory=list)
    """Column, row id and reason of what could not be opened; it was left as it is."""


def _registry(keyring: Keyring, registry: Registry) -> str:
    credentials = open_own(keyring, registry)
    assert credentials is not None  # noqa: S101 - only rows with a sealed value are looked at
    return seal_own(keyring, registry, credentials)


def _job(keyring: Keyring, job: Job) -> str:
    bound_to, sealed = job.registry_fingerprint or "", job.credentials or ""
    return seal_for_job(keyring, job.id, bound_to, open_for_job(keyring, job.id, bound_to, sealed))


def _algorithm(keyring: Keyring, algorithm: Algorithm) -> str:
    credentials = open_source(keyring, algorithm)
    assert credentials is not None  # noqa: S101 - only rows with a sealed value are looked at
    return seal_source(keyring, algorithm, *credentials)


def _webhook(keyring: Keyring, webhook: Webhook) -> str:
    return seal_secret(keyring, webhook.id, open_secret(keyring, webhook))


SEALED_COLUMNS = (
    SealedColumn("registries.credentials", Registry, Registry.credentials, _registry),
    SealedColumn("jobs.credentials", Job, Job.credentials, _job),
    SealedColumn("algorithms.source_credentials", Algorithm, Algorithm.source_credentials, _algorithm),
    SealedColumn("webhooks.secret", Webhook, Webhook.secret, _webhook),
)


def count_outdated(database: Database, keyring: Keyring) -> int:
    """How many values are sealed with another key than the one that seals now."""
    with database.reading() as session:
        counts = [
            session.scalar(select(func.count()).select_from(sealed.model).where(_outdated(sealed, keyring)))
            for sealed in SEALED_COLUMNS
        ]
    return sum(count or 0 for count in counts)


def rotate(database: Database, keyring: Keyring, on_row: Callable[[], None] = lambda: None) -> Rotated:
    """Seal again, with the key that seals now, whatever another key sealed.

    A value that somebody else changes meanwhile is his; if it is outdated still, the next rotation finds it.
    `on_row` is called after each row that was looked at.
    """
    rotated = Rotated()
    for sealed in SEALED_COLUMNS:
        for seqs in _batches(database, keyring, sealed):
            with database.writing() as session:
                for seq in seqs:
                    _rotate_row(session, keyring, sealed, seq, rotated)
                    on_row()
    return rotated


def _batches(database: Database, keyring: Keyring, sealed: SealedColumn) -> Iterator[list[int]]:
    last = 0
    while True:
        with database.reading() as session:
            query = select(sealed.model.seq).where(_outdated(sealed, keyring), sealed.model.seq > last)
            seqs = list(session.scalars(query.order_by(sealed.model.seq).limit(BATCH)))
        if not seqs:
            return
        yield seqs
        last = seqs[-1]


def _outdated(sealed: SealedColumn, keyring: Keyring) -> Any:
    current = sealed.column.startswith(f"{keyring.sealing_id}.", autoescape=True)
    return sealed.column.is_not(None) & ~current


def _rotate_row(session: Session, keyring: Keyring, sealed: SealedColumn, seq: int, rotated: Rotated) -> None:
    row = session.get(sealed.model, seq)
    old = None if row is None else getattr(row, sealed.column.key)
    if row is None or old is None:
        return  # removed since it was listed
    try:
        fresh = sealed.seal_again(keyring, row)
    except DecryptionError as error:
        rotated.unopened.append((sealed.name, row.id, str(error)))
        return
    values: dict[Any, Any] = {sealed.column: fresh}
    if not isinstance(row, Job):
        values[type(row).updated_at] = type(row).updated_at  # nobody changed what it says
    # Compare and set: the old ciphertext is repeated, so that a value that was just replaced is not brought back.
    done = session.execute(
        update(sealed.model)
        .where(sealed.model.seq == seq, sealed.column == old)
        .values(values)
        .returning(sealed.model.seq)
        .execution_options(synchronize_session=False)
    )
    rotated.resealed += len(done.all())
