"""Scripts that run inside a build container, by the image's own Python (3.8 or newer): the standard library only."""
