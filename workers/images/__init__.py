"""Images: the image store, OCI documents, and where the image of a push comes from."""
