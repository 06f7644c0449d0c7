"""The image store, OCI documents, layers, and transfers between the store and an engine."""
