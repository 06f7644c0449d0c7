"""Images that Longshore puts together itself: layers, configurations and manifests become blobs of the image store."""
