"""Faults injected for real into a whole Longshore, and what must hold when the dust has settled."""
