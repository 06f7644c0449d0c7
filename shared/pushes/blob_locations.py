"""Which large layers a registry has in which repository, as pushes found it: hints for mounting, never a truth."""

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.db.models import RegistryBlob

WORTH_BYTES = 256 * 1024
"""A smaller layer is uploaded sooner than a mount is tried for it."""


def known_blob_locations(session: Session, registry_id: str, digests: Iterable[str]) -> Mapping[str, str]:
    """The repositories in which a registry was seen to have these layers, by digest."""
    rows = session.execute(
        select(RegistryBlob.digest, RegistryBlob.repository).where(
            RegistryBlob.registry_id == registry_id, RegistryBlob.digest.in_(list(digests))
        )
    )
    return {digest: repository for digest, repository in rows}  # noqa: C416 - rows are no pairs to mypy


def forget_blob_locations(session: Session, registry_id: str) -> None:
    """The registry is elsewhere now, or gone: what was where before is nobody's business there."""
    session.execute(delete(RegistryBlob).where(RegistryBlob.registry_id == registry_id))


def record_blob_locations(session: Session, registry_id: str, digests: Iterable[str], repository: str) -> None:
    """Remember that a repository of the registry has these layers."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # In one order, so that two pushes which note the same layers never wait for each other in a circle.
    for digest in sorted(digests):
        statement = insert(RegistryBlob).values(registry_id=registry_id, digest=digest, repository=repository)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["registry_id", "digest"], set_={"repository": statement.excluded.repository}
            )
        )
