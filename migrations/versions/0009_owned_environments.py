"""owned environments: builds forget environments that were stored without an owner, so that they are made again."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # The key alone does not tell whether it has the owner in it. The images in the store are left to its collector.
    builds = sa.table("builds", sa.column("environment_key", sa.String(80)))
    op.execute(builds.update().values(environment_key=None))


def downgrade() -> None:
    """Keep the builds as they are: the older release makes the environments again too."""
