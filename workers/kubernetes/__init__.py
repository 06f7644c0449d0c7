"""Access to a Kubernetes cluster, shared by the queues `serving` and `nodes`."""
