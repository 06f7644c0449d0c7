"""The serving backend of this installation, as its settings choose it."""

from functools import cache

from shared.settings import settings
from workers.serving.backend import Backend
from workers.serving.docker.backend import DockerBackend


@cache
def backend() -> Backend:
    """The Docker engine of this machine, or the cluster."""
    if settings().serving == "docker":
        return DockerBackend()
    from workers.serving.kubernetes.backend import KubernetesBackend  # noqa: PLC0415 - its client takes a second to load

    return KubernetesBackend(settings())
