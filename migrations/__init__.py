"""The database's schema, step by step. `longshore migrate` applies what is missing."""
