"""The queue `maintenance`: the sweep, drift checks and webhook deliveries."""
