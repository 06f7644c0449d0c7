"""indexes for a long history, and tallies of its events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

LISTS = (
    ("algorithms", "ix_algorithms_owner_name", ["owner", "name"]),
    ("image_pushes", "ix_image_pushes_registry_seq", ["registry_id", "seq"]),
    ("jobs", "ix_jobs_kind_seq", ["kind", "seq"]),
    ("jobs", "ix_jobs_kind_state_seq", ["kind", "state", "seq"]),
    ("jobs", "ix_jobs_registry_seq", ["registry_id", "seq"]),
    ("jobs", "ix_jobs_registry_state_seq", ["registry_id", "state", "seq"]),
    ("jobs", "ix_jobs_state_seq", ["state", "seq"]),
)
AMONG_FEW = (
    ("ix_jobs_leased_registry", ["registry_id", "lease_expires_at"], "lease_owner IS NOT NULL"),
    ("ix_jobs_queued_awaits", ["awaits_id"], "state = 'queued' AND awaits_id IS NOT NULL"),
    ("ix_jobs_queued_lock_key", ["lock_key"], "state = 'queued'"),
    ("ix_jobs_queued_pushes", ["owner", "kind", "state", "seq"], "state = 'queued' AND kind = 'push'"),
)
REPLACED = (
    ("algorithms", "ix_algorithms_owner", ["owner"]),
    ("jobs", "ix_jobs_awaits_id", ["awaits_id"]),
    ("jobs", "ix_jobs_registry_state", ["registry_id", "state"]),
    ("jobs", "ix_jobs_state_next_attempt", ["state", "next_attempt_at"]),
    ("push_events", "ix_push_events_kind_state", ["kind", "state"]),
)


def upgrade() -> None:
    op.create_table(
        "push_tallies",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("kind", "state"),
    )
    for table, name, columns in LISTS:
        op.create_index(name, table, columns)
    for name, columns, condition in AMONG_FEW:
        where = sa.text(condition)
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
    for table, name, _columns in REPLACED:
        op.drop_index(name, table)


def downgrade() -> None:
    for table, name, columns in REPLACED:
        op.create_index(name, table, columns)
    for name, _columns, _condition in AMONG_FEW:
        op.drop_index(name, "jobs")
    for table, name, _columns in LISTS:
        op.drop_index(name, table)
    op.drop_table("push_tallies")
