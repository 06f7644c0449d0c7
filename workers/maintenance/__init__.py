"""The queue `maintenance`: sweep, drift, webhook deliveries, and garbage collection."""
