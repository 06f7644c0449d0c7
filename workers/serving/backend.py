"""What a serving backend does: start, observe and stop instances; and the backend of this installation."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from shared.cancellation import CancelToken
from shared.db.models import Instance, Registry
from shared.errors import ErrorClass, WorkError
from shared.registry.credentials import Credentials
from shared.settings import settings


@dataclass(frozen=True)
class InstanceSpec:
    """All that a backend needs to start an instance.

    `algorithm` is OWNER/NAME, for labels. `registry` is the one that the image is pulled from, with its own
    `credentials`; None: the image is in the platform's own store.
    """

    instance: Instance
    algorithm: str
    git_hash: str
    registry: Registry | None
    credentials: Credentials | None


@dataclass(frozen=True)
class StartedInstance:
    """Where a started instance takes calls, as `Instance` records it."""

    endpoint: str
    runtime_ref: str


@dataclass(frozen=True)
class ObservedInstance:
    """The state of an instance that was started, and in a sentence why it ended."""

    alive: bool
    reason: str = ""


class ServingBackend(Protocol):
    """Runs images. Every method is idempotent, and any worker may call it again.

    `one_per_version`: a start ends the version's other instance; otherwise both run until the older one has drained.
    """

    one_per_version: bool

    def start(self, spec: InstanceSpec, report: Callable[[str], None], stop: CancelToken) -> StartedInstance:
        """Pull the image from its registry, run it, and wait until it takes calls.

        An algorithm that fails to load takes calls too: the response to each is the error. `report` gets the progress
        in sentences.

        Raises:
            WorkCancelledError: the start was cancelled; nothing of it runs then.
            WorkError: the image cannot be pulled or run; the message says why and what to do.
        """

    def observe(self, instances: Sequence[Instance]) -> Mapping[str, ObservedInstance]:
        """Return the state of these instances by id. An instance that is missing from the result does not run.

        Raises:
            WorkError: the engine or the cluster does not respond (unavailable).
        """

    def restart(self, instance: Instance) -> bool:
        """Replace a running instance by one that pulls the image again, while it keeps taking calls.

        Return False if the backend cannot do that; the instance must be drained instead.

        Raises:
            WorkError: the engine or the cluster does not respond (unavailable).
        """

    def stop(self, instance: Instance) -> None:
        """End an instance: calls in progress get the runner's grace period, new ones are refused. No-op if it is gone.

        Raises:
            WorkError: the engine or the cluster does not respond (unavailable).
        """

    def remove_orphans(self, known: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        """Remove what this installation started and has no row for any more.

        `known` are the ids of the instances that may run; `existing` returns those of the given versions that still
        exist.

        Raises:
            WorkError: the engine or the cluster does not respond (unavailable).
        """


def load_timeout(seconds: float) -> WorkError:
    return WorkError(
        ErrorClass.INVALID,
        f"The algorithm did not load within {seconds:g} s (LONGSHORE_SERVING_START_SECONDS): let it do less when it is "
        "imported.",
    )


@cache
def serving_backend() -> ServingBackend:
    """Return the backend for LONGSHORE_SERVING: the Docker engine of this machine, or the cluster.

    Raises:
        WorkError: no cluster is configured (unavailable).
    """
    if settings().serving == "docker":
        from workers.serving.docker.backend import DockerBackend  # noqa: PLC0415 - it implements what is declared here

        return DockerBackend()
    # The client of Kubernetes takes a second to load.
    from workers.kubernetes.cluster import Cluster  # noqa: PLC0415
    from workers.serving.kubernetes.backend import KubernetesBackend  # noqa: PLC0415

    return KubernetesBackend(settings(), Cluster.connect(settings().kubernetes_namespace))
