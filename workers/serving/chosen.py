"""What runs images in this installation, as its settings choose it."""

from functools import cache

from workers.serving.backend import Backend
from workers.serving.docker.backend import DockerBackend


@cache
def backend() -> Backend:
    """The Docker engine of this machine."""
    return DockerBackend()
