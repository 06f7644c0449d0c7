"""The database: engine and transactions, tables, the database's clock, and upserts."""
