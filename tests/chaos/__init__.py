"""Inject real faults into a complete Longshore, and check its state after they end."""
