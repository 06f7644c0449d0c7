"""Instances that run algorithms for callers: created, started, drained and stopped."""
