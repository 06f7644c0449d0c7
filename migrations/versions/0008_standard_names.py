"""standard names: tables, columns and stored values take the terms of the field. Ciphertexts stay as they are."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

TABLES = {"servings": "instances", "marks": "periodic_runs", "worker_nodes": "worker_processes"}
COLUMNS = {
    "jobs": {
        "lock_key": "lock_name",
        "nudged_at": "dispatched_at",
        "nudges": "dispatch_count",
        "asked_order": "request_seq",
        "serving_id": "instance_id",
    },
    "image_pushes": {"moved_at": "progressed_at", "last_success_order": "last_success_seq"},
    "instances": {"runs_as": "runtime_ref"},
    "refreshes": {"released_at": "uncordoned_at"},
}
VALUES = {
    "instances.state": {"wanted": "pending"},
    "push_events.kind": {"stalled-still": "stalled-no-progress"},
    "push_tallies.kind": {"stalled-still": "stalled-no-progress"},
    "periodic_runs.name": {"tending": "reconcile", "release": "uncordon"},
}
STEP_KEYS = {"serving_id": "instance_id"}
"""Keys of each step in `refreshes.progress`."""

LEASED = "lease_owner IS NOT NULL"
REFRESH_LIVE = "kind = 'refresh' AND state IN ('queued', 'running')"
QUEUED = "state = 'queued'"
JOB_INDEXES = (
    # name before, name after, condition, unique
    ("uq_jobs_lock_key_leased", "uq_jobs_lock_leased", LEASED, True),
    ("uq_jobs_refresh_live", "uq_jobs_refresh_live", REFRESH_LIVE, True),
    ("ix_jobs_queued_lock_key", "ix_jobs_queued_lock", QUEUED, False),
)
# Partial indexes name values and columns, so they are dropped before the renames and created after them.


def _create_index(name: str, table: str, columns: Sequence[str], where: str | None, *, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=condition, postgresql_where=condition)


def _rename_columns(columns: dict[str, dict[str, str]]) -> None:
    for table, names in columns.items():
        for old, new in names.items():
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def _replace_values(values: dict[str, dict[str, str]]) -> None:
    for place, replacements in values.items():
        name, column = place.split(".")
        table = sa.table(name, sa.column(column))
        for old, new in replacements.items():
            op.execute(table.update().where(table.c[column] == old).values({column: new}))


def _rename_step_keys(names: dict[str, str]) -> None:
    refreshes = sa.table("refreshes", sa.column("seq"), sa.column("progress", sa.JSON()))
    connection = op.get_bind()
    for seq, progress in connection.execute(sa.select(refreshes.c.seq, refreshes.c.progress)).all():
        renamed = [{names.get(key, key): value for key, value in step.items()} for step in progress]
        connection.execute(refreshes.update().where(refreshes.c.seq == seq).values(progress=renamed))


def upgrade() -> None:
    for old, _new, _where, _unique in JOB_INDEXES:
        op.drop_index(old, "jobs")
    for name in ("ix_servings_running", "ix_servings_version_seq", "uq_servings_serving"):
        op.drop_index(name, "servings")

    for old, new in TABLES.items():
        op.rename_table(old, new)
    _rename_columns(COLUMNS)
    _replace_values(VALUES)
    _rename_step_keys(STEP_KEYS)

    for _old, new, where, unique in JOB_INDEXES:
        _create_index(new, "jobs", ["lock_name"], where, unique=unique)
    _create_index("ix_instances_running", "instances", ["state", "seq"], "state IN ('pending', 'ready', 'draining')")
    _create_index("ix_instances_version_seq", "instances", ["version_id", "seq"], None)
    _create_index(
        "uq_instances_live",
        "instances",
        ["version_id", "image", "network"],
        "state IN ('pending', 'ready')",
        unique=True,
    )


def downgrade() -> None:
    for _old, new, _where, _unique in JOB_INDEXES:
        op.drop_index(new, "jobs")
    for name in ("ix_instances_running", "ix_instances_version_seq", "uq_instances_live"):
        op.drop_index(name, "instances")

    _rename_step_keys({new: old for old, new in STEP_KEYS.items()})
    _replace_values({place: {new: old for old, new in values.items()} for place, values in VALUES.items()})
    _rename_columns({table: {new: old for old, new in names.items()} for table, names in COLUMNS.items()})
    for old, new in TABLES.items():
        op.rename_table(new, old)

    for old, _new, where, unique in JOB_INDEXES:
        _create_index(old, "jobs", ["lock_key"], where, unique=unique)
    _create_index("ix_servings_running", "servings", ["state", "seq"], "state IN ('wanted', 'ready', 'draining')")
    _create_index("ix_servings_version_seq", "servings", ["version_id", "seq"], None)
    _create_index(
        "uq_servings_serving",
        "servings",
        ["version_id", "image", "network"],
        "state IN ('wanted', 'ready')",
        unique=True,
    )
