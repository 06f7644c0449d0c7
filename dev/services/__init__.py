"""Real services for tests and demo: engine, registries, Redis, PostgreSQL. Private, on loopback, removed at the end."""
