"""Tests of the whole product with its users' tools: `longshore up` with real services, clients, curl, git."""
