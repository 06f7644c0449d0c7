"""the image store: manifests of builds, transports and proxies of registries, blob locations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "registry_blobs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("registry_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("repository", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("registry_id", "digest"),
    )
    with op.batch_alter_table("builds", schema=None) as batch_op:
        batch_op.add_column(sa.Column("manifest_digest", sa.String(length=80), nullable=True))
        batch_op.add_column(sa.Column("refreshes_environment", sa.Boolean(), server_default=sa.false(), nullable=False))
    with op.batch_alter_table("registries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("transport", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("proxy_url", sa.String(length=255), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("registries", schema=None) as batch_op:
        batch_op.drop_column("proxy_url")
        batch_op.drop_column("transport")
    with op.batch_alter_table("builds", schema=None) as batch_op:
        batch_op.drop_column("refreshes_environment")
        batch_op.drop_column("manifest_digest")
    op.drop_table("registry_blobs")
