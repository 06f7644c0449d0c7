"""The repositories in which a registry has large layers, as pushes saw them. They are hints for mounts only."""

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.db.models import RegistryBlob

MIN_MOUNT_BYTES = 256 * 1024
"""Uploading a smaller layer is faster than trying to mount it."""


def known_blob_locations(session: Session, registry_id: str, digests: Iterable[str]) -> Mapping[str, str]:
    rows = session.execute(
        select(RegistryBlob.digest, RegistryBlob.repository).where(
            RegistryBlob.registry_id == registry_id, RegistryBlob.digest.in_(list(digests))
        )
    )
    return {row.digest: row.repository for row in rows}


def forget_blob_locations(session: Session, registry_id: str) -> None:
    session.execute(delete(RegistryBlob).where(RegistryBlob.registry_id == registry_id))


def record_blob_locations(session: Session, registry_id: str, digests: Iterable[str], repository: str) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # Sorted, so that two pushes that record the same layers do not deadlock.
    for digest in sorted(digests):
        statement = insert(RegistryBlob).values(registry_id=registry_id, digest=digest, repository=repository)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["registry_id", "digest"], set_={"repository": statement.excluded.repository}
            )
        )
