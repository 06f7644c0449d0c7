"""Create, inspect and stop the container of an instance, and the directory in which it makes its socket."""

import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from docker.errors import APIError, NotFound
from docker.types import Mount

from shared.errors import ErrorClass, WorkError
from shared.instances.endpoints import SOCKET
from shared.settings import settings
from workers.docker.connection import engine, engine_errors
from workers.docker.images import image_needed
from workers.docker.network import ensure_network
from workers.docker.sandbox import confined
from workers.runner import RUNS_AS
from workers.serving.backend import InstanceSpec
from workers.serving.docker.memory_disk import mount_memory_disk, not_mountable, unmount_memory_disk

OPEN_MODE = 0o777
SEALED_MODE = 0o555
NAME_PREFIX = "longshore-serve-"
INSTANCE_LABEL = "longshore.serving"
HOME_LABEL = "longshore.serving-directory"
"""Identifies the installation: two Longshores on one engine have different directories."""
MOUNT_PATH = "/run/longshore"
STOP_GRACE_SECONDS = 15
"""Longer than a runner needs to end its calls."""
LOG_LINES = 5
MAX_LOG_LENGTH = 1000
SIGKILL_STATUS = 137
"""Exit status of a process that SIGKILL ended (128 and the signal's number)."""


def socket_directory(instance_id: str) -> Path:
    """Return the directory's path, which is the same for this process and for the engine."""
    return settings().resolved_serving_dir / instance_id


def make_directory(instance_id: str) -> Path:
    """Make an empty directory that every user may write to, in one that only this process's user may enter.

    It is a file system in memory, which limits what can be written to it. If the engine does not see the mount, it uses
    the directory below, to which only this process's user may write, and the container fails.

    Raises:
        WorkError: this process may not mount file systems, and LONGSHORE_SERVING_SOCKETS does not allow the disk
            (unavailable).
    """
    parent = settings().resolved_serving_dir
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent.chmod(0o700)  # also if it existed: every user may connect to the sockets in it
    remove_directory(instance_id)
    directory = socket_directory(instance_id)
    directory.mkdir(mode=0o700)
    if settings().serving_sockets == "disk":
        directory.chmod(OPEN_MODE)
        return directory
    try:
        mount_memory_disk(directory, OPEN_MODE)
    except OSError as error:
        remove_directory(instance_id)
        raise not_mountable(error) from error
    return directory


def has_socket(instance_id: str) -> bool:
    """Return whether the container has made its socket.

    Raises:
        WorkError: the directory has a file other than the socket (invalid).
    """
    directory = socket_directory(instance_id)
    entries = os.listdir(directory)
    if not entries:
        return False
    if entries != [SOCKET] or not stat.S_ISSOCK((directory / SOCKET).lstat().st_mode):
        raise WorkError(
            ErrorClass.INVALID,
            "The image writes something other than a socket into the directory of its socket: it must have Longshore's "
            "runner as its entry point.",
        )
    return True


def seal_directory(instance_id: str) -> None:
    """Make the directory read-only. The container's user does not own it, so it cannot undo that.

    The runner waits for this before it starts the algorithm, which therefore cannot replace the socket.

    Raises:
        WorkError: the directory has something other than the socket in it (invalid).
    """
    socket_directory(instance_id).chmod(SEALED_MODE)
    has_socket(instance_id)


def remove_directory(instance_id: str) -> None:
    """Remove the directory and its content; no-op if it does not exist."""
    directory = socket_directory(instance_id)
    unmount_memory_disk(directory)
    with suppress(FileNotFoundError):
        directory.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)


def list_directories(*, older_than_seconds: float) -> list[str]:
    """Return the ids of the instances whose directory is older than so many seconds."""
    before = time.time() - older_than_seconds
    with suppress(FileNotFoundError):
        return [
            entry.name
            for entry in os.scandir(settings().resolved_serving_dir)
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before
        ]
    return []


class ListedContainer(NamedTuple):
    """A container as the engine lists it, created at a number of seconds since 1970."""

    is_running: bool
    created_at: int


def container_name(instance_id: str) -> str:
    return f"{NAME_PREFIX}{instance_id}"


def run_container(spec: InstanceSpec, image: str, directory: Path) -> None:
    """Create and start the container of an instance, confined so that it can harm only itself.

    Raises:
        WorkError: its network does not exist, or the engine does not respond (both unavailable); the image cannot be
            started (invalid).
    """
    chosen, instance = settings(), spec.instance
    network = "none" if instance.network == "isolated" else chosen.serving_network
    ensure_network(network)
    client, name = engine(), container_name(instance.id)
    with engine_errors(), image_needed(image):
        client.create_container(
            image,
            name=name,
            user=f"{RUNS_AS}:{RUNS_AS}",
            environment={
                "LONGSHORE_PORT": "0",
                "LONGSHORE_SOCKET": f"{MOUNT_PATH}/socket",
                "LONGSHORE_SOCKET_SEALED": "1",
                "LONGSHORE_MAX_REQUEST_BYTES": str(chosen.call_max_bytes),
            },
            healthcheck={"test": ["NONE"]},  # replaces the image's own, which nothing would read
            labels={
                INSTANCE_LABEL: instance.id,
                HOME_LABEL: str(chosen.resolved_serving_dir),
                "longshore.owner": instance.owner,
                "longshore.algorithm": spec.algorithm,
                "longshore.version": spec.git_hash,
            },
            host_config=confined(
                client, image, network, [Mount(target=MOUNT_PATH, source=str(directory), type="bind")]
            ),
            use_config_proxy=False,
        )
        try:
            client.start(name)
        except NotFound as error:
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"Algorithms cannot start on the network {chosen.serving_network!r} (LONGSHORE_SERVING_NETWORK): "
                f"{error.explanation}",
            ) from error
        except APIError as error:
            raise WorkError(ErrorClass.INVALID, f"The image cannot be started: {error.explanation}") from error


def container_state(instance_id: str) -> dict[str, Any] | None:
    """Return the `State` of the container (Engine API, "Inspect a container"); None if it does not exist.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    with engine_errors(), suppress(NotFound):
        state: dict[str, Any] = engine().inspect_container(container_name(instance_id))["State"]
        return state
    return None


def end_reason(instance_id: str, state: dict[str, Any]) -> str:
    """Return in sentences why a container ended, with the last lines of its output.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    status = state.get("ExitCode")
    if state.get("OOMKilled"):
        limit = settings().serving_memory_bytes // (1024 * 1024)
        reason = f"The algorithm's container was ended for using more memory than its {limit} MiB."
    elif status == SIGKILL_STATUS:
        reason = "The algorithm's container was killed."
    else:
        reason = f"The algorithm's container ended with exit status {status}."
    output = ""
    with engine_errors(), suppress(NotFound):
        output = engine().logs(container_name(instance_id), tail=LOG_LINES).decode(errors="replace").strip()
    return f"{reason} Its last output: {output[-MAX_LOG_LENGTH:]}" if output else reason


def list_containers() -> dict[str, ListedContainer]:
    """Return the containers of this installation's instances, by the instances' ids.

    A container also has the labels of its image, and the image of a caller's own Dockerfile may have any. So a
    container belongs to an instance only if its name says so.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    home = f"{HOME_LABEL}={settings().resolved_serving_dir}"
    with engine_errors():
        listed = engine().containers(all=True, filters={"label": home})
    return {
        name.removeprefix(f"/{NAME_PREFIX}"): ListedContainer(container["State"] == "running", container["Created"])
        for container in listed
        for name in container["Names"]
        if name.startswith(f"/{NAME_PREFIX}")
    }


def stop_container(instance_id: str) -> None:
    """Ask the container to end, and kill it if it does not; no-op if it does not exist.

    Raises:
        WorkError: the engine does not respond (unavailable).
    """
    with engine_errors(), suppress(NotFound):
        engine().stop(container_name(instance_id), timeout=STOP_GRACE_SECONDS)
