"""OCI images as documents: descriptors, manifests and configurations (image-spec 1.1)."""
