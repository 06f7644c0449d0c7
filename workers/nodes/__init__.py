"""Refresh worker nodes and running instances: the queue `nodes`."""
