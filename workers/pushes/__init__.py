"""The queue `pushes`: from the image store into a registry."""
