"""Push rows: their progress, history, counters, drift, stalls, and the known blob locations."""
