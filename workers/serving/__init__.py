"""Run images for callers: the queue `serving`, on the Docker engine of this machine or on a Kubernetes cluster."""
