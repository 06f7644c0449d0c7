"""Access to a Docker engine: connections, images, pushes, and the classes of its errors."""
