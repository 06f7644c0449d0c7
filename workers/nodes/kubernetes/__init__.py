"""Drain, cordon and restart the nodes of a Kubernetes cluster."""
