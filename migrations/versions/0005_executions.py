"""executions: pull resolution, instances, asynchronous calls."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SERVES = sa.text("state IN ('wanted', 'ready')")
RUNS = sa.text("state IN ('wanted', 'ready', 'draining')")


def upgrade() -> None:
    op.create_table(
        "call_requests",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("caller", sa.String(length=64), nullable=False),
        sa.Column("algorithm_id", sa.String(length=36), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error_type", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("call_requests", schema=None) as batch_op:
        batch_op.create_index("ix_call_requests_deadline", ["deadline_at"], unique=False)

    op.create_table(
        "servings",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("algorithm_id", sa.String(length=36), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("registry_id", sa.String(length=36), nullable=True),
        sa.Column("image", sa.String(length=512), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("network", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=True),
        sa.Column("runs_as", sa.String(length=128), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.Column("draining_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("servings", schema=None) as batch_op:
        batch_op.create_index(
            "ix_servings_running",
            ["state", "seq"],
            unique=False,
            sqlite_where=RUNS,
            postgresql_where=RUNS,
        )
        batch_op.create_index("ix_servings_version_seq", ["version_id", "seq"], unique=False)
        batch_op.create_index(
            "uq_servings_serving",
            ["version_id", "image", "network"],
            unique=True,
            sqlite_where=SERVES,
            postgresql_where=SERVES,
        )

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("serving_id", sa.String(length=36), nullable=True))
        batch_op.add_column(sa.Column("asked_order", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pinned_registry_id", sa.String(length=36), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.drop_column("pinned_registry_id")

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("asked_order")
        batch_op.drop_column("serving_id")

    with op.batch_alter_table("servings", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_servings_serving",
            sqlite_where=SERVES,
            postgresql_where=SERVES,
        )
        batch_op.drop_index("ix_servings_version_seq")
        batch_op.drop_index(
            "ix_servings_running",
            sqlite_where=RUNS,
            postgresql_where=RUNS,
        )

    op.drop_table("servings")
    with op.batch_alter_table("call_requests", schema=None) as batch_op:
        batch_op.drop_index("ix_call_requests_deadline")

    op.drop_table("call_requests")
