"""The image store: where images wait for their pushes, content-addressed, on disk or in a registry of our own."""
