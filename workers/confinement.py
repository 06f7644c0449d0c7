"""Warn at the start of a worker if builds or algorithms are less confined than they could be."""

from collections.abc import Collection

from shared.errors import WorkError
from shared.jobs.queues import Queues
from shared.settings import settings
from workers.docker.connection import ping
from workers.docker.network import confinement_problem
from workers.serving.docker.memory_disk import sockets_warning

TIMEOUT_SECONDS = 5


def confinement_warnings(queues: Collection[str]) -> list[str]:
    """Return a warning for each kind of work of these queues that is less confined than it could be.

    An engine that does not respond is reported elsewhere.
    """
    chosen = settings()
    builds, serves = Queues.BUILDS in queues, Queues.SERVING in queues and chosen.serving == "docker"
    if not builds and not serves:
        return []
    try:
        ping(timeout=TIMEOUT_SECONDS)
    except WorkError:
        return []
    warnings: list[str] = []
    if builds:
        warnings += _of_network("LONGSHORE_BUILD_NETWORK", chosen.build_network, "what callers build")
    if serves:
        warnings += _of_network("LONGSHORE_SERVING_NETWORK", chosen.serving_network, "algorithms that callers run")
        warnings += filter(None, [sockets_warning()])
    return warnings


def _of_network(variable: str, network: str, what: str) -> list[str]:
    try:
        problem = confinement_problem(network)
    except WorkError:
        return []
    if problem is None:
        return []
    return [f"{variable}={network} is the network of {what}. {problem} Use it only with source that you trust."]
