"""Run migrations on the given connection, all steps in one transaction (Alembic's environment script)."""

from alembic import context

from shared.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # SQLite too: shared.db.engine sends BEGIN itself
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
