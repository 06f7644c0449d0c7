"""Registries that an administrator recorded: rows, credentials, circuit breaker, and check."""
