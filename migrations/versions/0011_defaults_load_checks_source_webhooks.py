"""defaults, load checks, source webhooks: also errors of calls, and a push account of a registry."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DEFAULT = sa.text("is_default AND deleted_at IS NULL")
UNCHECKED = sa.text("load_check IS NULL AND status = 'succeeded'")


def upgrade() -> None:
    op.create_table(
        "call_errors",
        sa.Column("seq", SEQ, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("algorithm_id", sa.String(36), nullable=False),
        sa.Column("version_id", sa.String(36), nullable=False),
        sa.Column("logs", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("ix_call_errors_algorithm_id", "call_errors", ["algorithm_id"])
    op.create_index("ix_call_errors_owner_seq", "call_errors", ["owner", "seq"])
    op.create_table(
        "default_registries",
        sa.Column("seq", SEQ, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("registry_id", sa.String(36), nullable=False),
        sa.Column("push_credentials", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("level", "subject"),
    )
    op.create_index("ix_default_registries_registry_id", "default_registries", ["registry_id"])
    op.create_table(
        "source_deliveries",
        sa.Column("seq", SEQ, autoincrement=True, nullable=False),
        sa.Column("algorithm_id", sa.String(36), nullable=False),
        sa.Column("delivery", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("algorithm_id", "delivery"),
    )
    op.create_index("ix_source_deliveries_created_at", "source_deliveries", ["created_at"])
    op.add_column("algorithms", sa.Column("scm_id", sa.String(64), nullable=True))
    op.add_column("algorithms", sa.Column("webhook_secret", sa.Text(), nullable=True))
    op.add_column("builds", sa.Column("load_check", sa.String(16), nullable=True))
    op.add_column("builds", sa.Column("load_check_traceback", sa.Text(), nullable=True))
    op.create_index(
        "ix_builds_unchecked", "builds", ["finished_at"], sqlite_where=UNCHECKED, postgresql_where=UNCHECKED
    )
    op.add_column("registries", sa.Column("push_credentials", sa.Text(), nullable=True))
    op.add_column("registries", sa.Column("is_default", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "uq_registries_default",
        "registries",
        ["is_default"],
        unique=True,
        sqlite_where=DEFAULT,
        postgresql_where=DEFAULT,
    )


def downgrade() -> None:
    op.drop_index("uq_registries_default", "registries")
    with op.batch_alter_table("registries") as registries:
        registries.drop_column("is_default")
        registries.drop_column("push_credentials")
    op.drop_index("ix_builds_unchecked", "builds")
    with op.batch_alter_table("builds") as builds:
        builds.drop_column("load_check_traceback")
        builds.drop_column("load_check")
    with op.batch_alter_table("algorithms") as algorithms:
        algorithms.drop_column("webhook_secret")
        algorithms.drop_column("scm_id")
    op.drop_table("source_deliveries")
    op.drop_table("default_registries")
    op.drop_table("call_errors")
