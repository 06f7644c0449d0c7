"""The serving backend for the Docker engine of this machine."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from typing_extensions import override

from shared.cancellation import CancelToken
from shared.db.models import Instance
from shared.errors import ErrorClass, WorkError
from shared.instances.endpoints import endpoint_of
from shared.registries.access import client_of
from shared.settings import settings
from workers.docker.images import remove_container
from workers.docker.network import ensure_network
from workers.docker.push import pull_image
from workers.images.engine_transfer import load_image
from workers.images.factory import image_store
from workers.images.image import read_image
from workers.images.image_store import held_image
from workers.serving.backend import InstanceSpec, ObservedInstance, ServingBackend, StartedInstance, load_timeout
from workers.serving.capacity import free_capacity
from workers.serving.docker.container import (
    container_name,
    container_state,
    end_reason,
    has_socket,
    list_containers,
    list_directories,
    make_directory,
    remove_directory,
    run_container,
    seal_directory,
    stop_container,
)
from workers.serving.health import read_health

POLL_INTERVAL_SECONDS = 0.02
STATE_POLL_INTERVAL_SECONDS = 0.5
NETWORK_INTERVAL_SECONDS = 30
ORPHAN_GRACE_SECONDS = 60
"""A younger container is kept without a row: the rows may have been read before its own was written."""


class DockerBackend(ServingBackend):
    """Runs each instance in a container."""

    one_per_version = False

    def __init__(self) -> None:
        self._network_ensured_at = 0.0

    @override
    def start(self, spec: InstanceSpec, report: Callable[[str], None], stop: CancelToken) -> StartedInstance:
        instance_id = spec.instance.id
        free_capacity(spec.instance.owner)
        image = _provide_image(spec, report, stop)
        _remove(instance_id)  # a worker that was lost during this start may have left a container
        try:
            report("Starts the container.")
            run_container(spec, image, make_directory(instance_id))
            _wait(instance_id, lambda: has_socket(instance_id), stop)
            seal_directory(instance_id)
            report("Waits until the algorithm has loaded.")
            _wait(instance_id, lambda: _has_loaded(instance_id), stop)
        except BaseException:
            _remove(instance_id)
            raise
        return StartedInstance(endpoint_of(instance_id), container_name(instance_id))

    @override
    def observe(self, instances: Sequence[Instance]) -> Mapping[str, ObservedInstance]:
        containers = list_containers()
        if instances and time.monotonic() - self._network_ensured_at > NETWORK_INTERVAL_SECONDS:
            ensure_network(settings().serving_network)  # a restarted firewall may have dropped its rules
            self._network_ensured_at = time.monotonic()
        observed = {}
        for instance_id in [instance.id for instance in instances if instance.id in containers]:
            if containers[instance_id].is_running:
                observed[instance_id] = ObservedInstance(alive=True)
            else:
                state = container_state(instance_id)
                observed[instance_id] = ObservedInstance(
                    alive=False, reason="" if state is None else end_reason(instance_id, state)
                )
        return observed

    @override
    def restart(self, instance: Instance) -> bool:
        """Return False: a container cannot be replaced behind its socket."""
        return False

    @override
    def stop(self, instance: Instance) -> None:
        stop_container(instance.id)
        _remove(instance.id)

    @override
    def remove_orphans(self, known: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        containers = list_containers()
        for instance_id, container in containers.items():
            if instance_id not in known and container.created_at < time.time() - ORPHAN_GRACE_SECONDS:
                _remove(instance_id)
        for instance_id in list_directories(older_than_seconds=ORPHAN_GRACE_SECONDS):
            if instance_id not in known and instance_id not in containers:
                remove_directory(instance_id)


def _provide_image(spec: InstanceSpec, report: Callable[[str], None], stop: CancelToken) -> str:
    """Have the image on the engine; return its reference there.

    An engine that pulled a digest once does not ask the registry for its manifest again. So the registry is asked
    first: an image that it deleted, or that these credentials may not read any more, must not run. Layers that the
    engine has are not transferred again.

    Raises:
        WorkError: the image is not in its registry or store any more (not_found), or it cannot be pulled.
    """
    registry, image = spec.registry, spec.instance.image
    repository, _, digest = image.rpartition("@")
    host, _, path = repository.partition("/")
    if registry is None:
        report("Loads the image from the platform's own store.")
        with image_store().use(stop) as use:
            manifest = held_image(use, digest)
            if manifest is None:
                raise WorkError(
                    ErrorClass.NOT_FOUND,
                    f"The platform's store does not have {digest} any more: have the commit built again (POST "
                    "…/compile?force=true).",
                )
            return load_image(use, read_image(use, manifest.descriptor), stop)
    report(f"Pulls the image from {registry.registry_url}.")
    with client_of(registry, spec.credentials, cancel_token=stop) as client:
        if client.manifest_digest(path, digest) is None:
            raise WorkError(
                ErrorClass.NOT_FOUND, f"{registry.registry_url} does not have {image} any more: push it there again."
            )
    pull_image(
        repository,
        digest,
        spec.credentials,
        on_event=lambda event: report(f"Pulls the image from {host}: {event}"),
        stop=stop,
    )
    return image


def _wait(instance_id: str, is_done: Callable[[], bool], stop: CancelToken) -> None:
    began = checked = time.monotonic()
    while not is_done():
        now = time.monotonic()
        if now - checked > STATE_POLL_INTERVAL_SECONDS:
            checked = now
            state = container_state(instance_id)
            if state is None or not state.get("Running"):
                reason = "Its container was removed." if state is None else end_reason(instance_id, state)
                raise WorkError(ErrorClass.INVALID, f"The algorithm did not start. {reason}")
        if now - began > settings().serving_start_seconds:
            raise load_timeout(settings().serving_start_seconds)
        stop.sleep(POLL_INTERVAL_SECONDS)


def _remove(instance_id: str) -> None:
    remove_container(container_name(instance_id))
    remove_directory(instance_id)


def _has_loaded(instance_id: str) -> bool:
    health = read_health(endpoint_of(instance_id))
    return health is not None and health.loaded
