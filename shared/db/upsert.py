"""Insert a row unless it exists, in one statement that concurrent transactions can run."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.db.models import Base


def insert_if_absent(session: Session, model: type[Base], unique: Sequence[str], **values: Any) -> bool:
    """Insert a row unless one has the same values in the `unique` columns. Return whether it was inserted."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    inserted = session.execute(
        insert(model)
        .values(**values)
        .on_conflict_do_nothing(index_elements=list(unique))
        .returning(model.__table__.c.seq)
    )
    return inserted.first() is not None
