"""Running images for their callers, on the Docker engine of this machine or on a Kubernetes cluster."""
