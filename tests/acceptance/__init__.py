"""Tests of the whole product through its users' tools: `longshore up` with real services, published clients, curl, git."""
