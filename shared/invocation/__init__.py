"""Calls of algorithms: which version is meant, and what became of calls whose callers did not wait."""
