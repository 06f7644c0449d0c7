"""What is run for callers: wanted, started, drained and stopped."""
