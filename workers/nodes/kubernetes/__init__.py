"""Worker nodes of a Kubernetes cluster."""
