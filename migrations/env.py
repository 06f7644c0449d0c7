"""How Alembic runs a migration: on the connection that it is handed, in one transaction for all steps."""

from alembic import context

from shared.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # of SQLite too: shared.db.engine says BEGIN itself
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
