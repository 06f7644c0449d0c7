"""The Docker engine of this machine as what runs images.

How many images run on one machine: the one that rested longest makes room for the next.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Instance, InstanceState, Registry
from shared.errors import ErrorClass, WorkError
from shared.instances.endpoints import endpoint_of
from shared.instances.states import begin_draining, running_instances
from shared.registries.rows import client_of
from shared.settings import settings
from workers.builds.environment.container import remove_container
from workers.docker.connection import engine, engine_errors
from workers.docker.push import pull_image
from workers.images.engine_transfer import load_image
from workers.images.factory import image_store
from workers.images.image import read_image
from workers.images.image_store import held_image
from workers.serving.backend import Observed, Start, Started
from workers.serving.docker.container import (
    create_container,
    how_it_ended,
    name_of,
    our_containers,
    start_container,
    state_of,
    stop_container,
)
from workers.serving.docker.directory import (
    has_socket,
    make_directory,
    remove_directory,
    seal_directory,
)
from workers.serving.health import ask_health

POLL_INTERVAL_SECONDS = 0.02
STATE_POLL_INTERVAL_SECONDS = 0.5
FORGOTTEN_AFTER = timedelta(seconds=60)
"""A container that no row knows is left alone for so long: its row may not have been seen yet."""


class DockerBackend:
    """A container for each serving."""

    one_per_version = False

    def start(self, start: Start, say: Callable[[str], None], stop: CancelToken) -> Started:
        """As `Backend.start` says: pulled, created, started, and waited for until its algorithm has loaded."""
        instance_id = start.instance.id
        free_capacity()
        image = self._image(start, say, stop)
        self._remove(instance_id)  # what a worker left that was lost over this very start
        try:
            say("Starts the container.")
            directory = make_directory(instance_id)
            with engine_errors():
                create_container(engine(), start, image, directory)
                start_container(engine(), instance_id)
            self._wait(instance_id, lambda: has_socket(instance_id), stop)
            seal_directory(instance_id)
            say("Waits until the algorithm has loaded.")
            self._wait(instance_id, lambda: _has_loaded(instance_id), stop)
        except BaseException:
            self._remove(instance_id)
            raise
        return Started(endpoint_of(instance_id), name_of(instance_id))

    def observe(self, instances: Sequence[Instance]) -> Mapping[str, Observed]:
        """As `Backend.observe` says."""
        there = our_containers()
        observed = {}
        for instance in instances:
            if instance.id not in there:
                continue
            runs, _made = there[instance.id]
            observed[instance.id] = Observed(alive=True) if runs else _ended(instance.id)
        return observed

    def restart(self, instance: Instance) -> bool:
        """As `Backend.restart` says: a container cannot be replaced behind its socket."""
        return False

    def stop(self, instance: Instance) -> None:
        """As `Backend.stop` says; the container and its directory are removed."""
        stop_container(instance.id)
        self._remove(instance.id)

    def clear(self, running: Collection[str], existing: Callable[[Collection[str]], Collection[str]]) -> None:
        """As `Backend.clear` says."""
        before = datetime.now(UTC) - FORGOTTEN_AFTER
        for instance_id, (_runs, made) in our_containers().items():
            if instance_id not in running and made < before:
                self._remove(instance_id)

    def _image(self, start: Start, say: Callable[[str], None], stop: CancelToken) -> str:
        repository, _, digest = start.instance.image.rpartition("@")
        if start.registry is None:
            say("Takes the image from the platform's own store.")
            with image_store().use(stop) as use:
                manifest = held_image(use, digest)
                if manifest is None:
                    raise WorkError(
                        ErrorClass.NOT_FOUND, f"the platform's store does not have {digest} any more: compile it again"
                    )
                return load_image(use, read_image(use, manifest.descriptor), stop)
        say(f"Pulls the image from {start.registry.registry_url}.")
        _ask_registry(start, start.registry, stop)
        pull_image(
            repository,
            digest,
            start.credentials,
            on_event=lambda event: say(f"Pulls the image from {repository.partition('/')[0]}: {event}"),
            stop=stop,
        )
        return start.instance.image

    def _wait(self, instance_id: str, done: Callable[[], bool], stop: CancelToken) -> None:
        began = looked = time.monotonic()
        while not done():
            now = time.monotonic()
            if now - looked > STATE_POLL_INTERVAL_SECONDS:
                looked = now
                state = state_of(instance_id)
                if state is None or not state.get("Running"):
                    why = "its container was removed" if state is None else how_it_ended(instance_id, state)
                    raise WorkError(ErrorClass.INVALID, f"the algorithm did not start: {why}")
            if now - began > settings().serving_start_seconds:
                raise WorkError(
                    ErrorClass.INVALID,
                    f"the algorithm did not load within {settings().serving_start_seconds:g} seconds "
                    "(LONGSHORE_SERVING_START_SECONDS)",
                )
            stop.pause(POLL_INTERVAL_SECONDS)

    def _remove(self, instance_id: str) -> None:
        remove_container(name_of(instance_id))
        remove_directory(instance_id)


def _ask_registry(start: Start, registry: Registry, stop: CancelToken) -> None:
    """Have the registry itself say that it has the image, and that these credentials may read it.

    An engine that has pulled a digest once knows its manifest, and asks nobody for it again; what a registry has
    deleted or locked away since is not to run. Equal digests still cost no bytes.

    Raises:
        WorkError: it has the image no more (not_found), or as it answers.
    """
    repository, _, digest = start.instance.image.rpartition("@")
    with client_of(registry, start.credentials, stop=stop) as client:
        if client.manifest_digest(repository.partition("/")[2], digest) is None:
            raise WorkError(
                ErrorClass.NOT_FOUND,
                f"{registry.registry_url} has no {start.instance.image} any more: push it there again",
            )


def _has_loaded(instance_id: str) -> bool:
    health = ask_health(endpoint_of(instance_id))
    return health is not None and health.loaded


def _ended(instance_id: str) -> Observed:
    state = state_of(instance_id)
    return Observed(alive=False, why="" if state is None else how_it_ended(instance_id, state))


def free_capacity() -> None:
    """Make sure that one more may be started.

    Raises:
        WorkError: as many run as may; the one that is idle longest, if any is, was told to end (unavailable: the job
            looks again).
    """
    most = settings().serving_max_instances
    with database().reading() as session:
        there = [instance for instance in running_instances(session) if instance.state != InstanceState.PENDING]
    if len(there) < most:
        return
    idle = {instance.id: _idle_seconds(instance) for instance in there if instance.state == InstanceState.READY}
    longest = max(idle, key=lambda instance_id: idle[instance_id], default=None)
    if longest is not None and idle[longest] > 0:
        with database().writing() as session:
            begin_draining(session, longest, "Makes room for another algorithm.")
    raise WorkError(
        ErrorClass.UNAVAILABLE,
        f"{len(there)} algorithms run on this machine, as many as may (LONGSHORE_SERVING_MAX_INSTANCES); it waits for room",
    )


def _idle_seconds(instance: Instance) -> float:
    health = ask_health(instance.endpoint or "")
    return 0.0 if health is None or health.idle_seconds is None else health.idle_seconds
