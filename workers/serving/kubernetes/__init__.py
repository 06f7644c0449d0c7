"""Run instances on a Kubernetes cluster: a Deployment and a Service for each version."""
