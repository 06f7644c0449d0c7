"""The queue `nodes`: refreshes of worker nodes and of running instances."""
