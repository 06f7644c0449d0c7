"""The worker nodes of this installation, as its settings choose them."""

from functools import cache

from shared.errors import ErrorClass, WorkError
from shared.settings import settings
from workers.refreshing.fleet import Fleet


@cache
def fleet() -> Fleet:
    """The nodes of the cluster.

    Raises:
        WorkError: algorithms run on one Docker machine, which has none (invalid).
    """
    if settings().serving == "docker":
        message = "There are no nodes where algorithms run on one Docker machine: order it with what=runners."
        raise WorkError(ErrorClass.INVALID, message)
    # Here, because its client takes a second to load.
    from workers.refreshing.kubernetes.fleet import KubernetesFleet  # noqa: PLC0415

    return KubernetesFleet(settings())
