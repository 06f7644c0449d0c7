"""Everything that the queues `serving` and `nodes` both need of a Kubernetes cluster."""
