"""Push rows: their changes, counters, drift and stalls, and the blob locations that are known."""
