"""Choose the serving backend by the settings of this installation."""

from functools import cache

from shared.settings import settings
from workers.serving.backend import ServingBackend
from workers.serving.docker.backend import DockerBackend


@cache
def serving_backend() -> ServingBackend:
    """Return the backend for LONGSHORE_SERVING: the Docker engine of this machine, or the cluster.

    Raises:
        WorkError: no cluster is configured (unavailable).
    """
    if settings().serving == "docker":
        return DockerBackend()
    # The client of Kubernetes takes a second to load.
    from workers.kubernetes.cluster import Cluster  # noqa: PLC0415
    from workers.serving.kubernetes.backend import KubernetesBackend  # noqa: PLC0415

    return KubernetesBackend(settings(), Cluster.connect(settings().kubernetes_namespace))
