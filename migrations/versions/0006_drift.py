"""drift: when a registry was last asked for a pushed image, and since when it is missing."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

MISSING = sa.text("missing_at IS NOT NULL")


def upgrade() -> None:
    with op.batch_alter_table("image_pushes", schema=None) as batch_op:
        for name in ("looked_at", "seen_at", "missing_at"):
            batch_op.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        batch_op.create_index("ix_image_pushes_looked_at", ["looked_at"], unique=False)
        batch_op.create_index(
            "ix_image_pushes_missing", ["seq"], unique=False, sqlite_where=MISSING, postgresql_where=MISSING
        )
    # A good push counts as a check.
    op.execute(sa.text("UPDATE image_pushes SET looked_at = last_success_at, seen_at = last_success_at"))


def downgrade() -> None:
    with op.batch_alter_table("image_pushes", schema=None) as batch_op:
        batch_op.drop_index("ix_image_pushes_missing", sqlite_where=MISSING, postgresql_where=MISSING)
        batch_op.drop_index("ix_image_pushes_looked_at")
        for name in ("missing_at", "seen_at", "looked_at"):
            batch_op.drop_column(name)
