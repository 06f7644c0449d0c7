"""Real parts to try Longshore on: engine, registries, Redis, PostgreSQL; private, on loopback, gone at the end."""
