"""jobs per owner: an index on the owners of live jobs, to count them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

LIVE = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    op.create_index("ix_jobs_live_owner", "jobs", ["owner"], sqlite_where=LIVE, postgresql_where=LIVE)


def downgrade() -> None:
    op.drop_index("ix_jobs_live_owner", "jobs")
