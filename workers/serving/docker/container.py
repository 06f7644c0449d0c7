"""The container of a serving: what it may use, how it is named, and how it ended."""

import posixpath
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from shared.errors import ErrorClass, WorkError
from shared.settings import settings
from workers.docker.connection import engine, engine_errors
from workers.docker.images import described_image
from workers.runner import RUNS_AS
from workers.serving.backend import Start

NAME_PREFIX = "longshore-serve-"
INSTANCE_LABEL = "longshore.serving"
HOME_LABEL = "longshore.serving-directory"
"""Whose it is: two Longshores on one engine have different directories."""
INSIDE = "/run/longshore"
STOP_SECONDS = 15
"""More than a runner takes to let its calls end and say its last words."""
LAST_LINES = 5
KILLED = 137
"""Exit status of a process that was ended by SIGKILL (128 and the signal's number)."""
NO_NEW_FILES = {"max-size": "1m", "max-file": "2"}
"""What an algorithm prints goes to the engine's disk, which is not to be filled by that."""


def name_of(instance_id: str) -> str:
    """What the container of a serving is called."""
    return f"{NAME_PREFIX}{instance_id}"


def create_container(client: APIClient, start: Start, image: str, directory: Path) -> None:
    """Create the container: nothing that it does is to harm anybody but itself.

    Raises:
        APIError: the engine refused it.
    """
    chosen, instance = settings(), start.instance
    client.create_container(
        image,
        name=name_of(instance.id),
        user=f"{RUNS_AS}:{RUNS_AS}",
        environment={
            "LONGSHORE_PORT": "0",
            "LONGSHORE_SOCKET": f"{INSIDE}/socket",
            "LONGSHORE_SOCKET_SEALED": "1",
            "LONGSHORE_MAX_REQUEST_BYTES": str(chosen.call_max_bytes),
        },
        healthcheck={"test": ["NONE"]},  # an image may bring one, of which nobody would read
        labels={
            INSTANCE_LABEL: instance.id,
            HOME_LABEL: str(chosen.resolved_serving_dir),
            "longshore.owner": instance.owner,
            "longshore.algorithm": start.algorithm,
            "longshore.version": start.git_hash,
        },
        host_config=client.create_host_config(
            network_mode="none" if instance.network == "isolated" else chosen.serving_network,
            mem_limit=chosen.serving_memory_bytes,
            memswap_limit=chosen.serving_memory_bytes,
            nano_cpus=int(chosen.serving_cpus * 1_000_000_000),
            pids_limit=chosen.serving_pids,
            read_only=True,
            # Compilers and caches of algorithms write there and run it; it counts as memory.
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={chosen.serving_tmp_bytes}"},  # noqa: S108
            mounts=[Mount(target=INSIDE, source=str(directory), type="bind"), *_instead_of_volumes(image)],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            log_config=LogConfig(type="json-file", config=NO_NEW_FILES),
        ),
        use_config_proxy=False,
    )


def _instead_of_volumes(image: str) -> list[Mount]:
    """Memory with a limit, where the image declares a volume: that would be a directory on the engine's disk."""
    declared = ((described_image(image) or {}).get("Config") or {}).get("Volumes") or {}
    size = settings().serving_tmp_bytes
    return [
        Mount(target=path, source=None, type="tmpfs", tmpfs_size=size)
        for path in declared
        if posixpath.normpath(path) not in ("/tmp", INSIDE)  # noqa: S108 - as in every container here
    ]


def start_container(client: APIClient, instance_id: str) -> None:
    """Start it.

    Raises:
        WorkError: its network does not exist (unavailable); the image cannot be started (invalid).
    """
    try:
        client.start(name_of(instance_id))
    except NotFound as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"algorithms cannot start on the network {settings().serving_network!r} (LONGSHORE_SERVING_NETWORK): "
            f"{error.explanation}",
        ) from error
    except APIError as error:
        raise WorkError(ErrorClass.INVALID, f"the image cannot be started: {error.explanation}") from error


def state_of(instance_id: str) -> dict[str, Any] | None:
    """The engine's `State` of the container (Engine API, "Inspect a container"); None where there is none.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            state: dict[str, Any] = engine().inspect_container(name_of(instance_id))["State"]
        except NotFound:
            return None
    return state


def how_it_ended(instance_id: str, state: dict[str, Any]) -> str:
    """Why a container runs no more, with the last that it printed.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    status = state.get("ExitCode")
    if state.get("OOMKilled"):
        limit = settings().serving_memory_bytes // (1024 * 1024)
        why = f"The algorithm's container was ended for using more memory than its {limit} MiB."
    elif status == KILLED:
        why = "The algorithm's container was killed."
    else:
        why = f"The algorithm's container ended with exit status {status}."
    with engine_errors():
        try:
            printed = engine().logs(name_of(instance_id), tail=LAST_LINES).decode(errors="replace").strip()
        except NotFound:
            printed = ""
    return f"{why} It said last: {printed[-1000:]}" if printed else why


def our_containers() -> dict[str, tuple[bool, datetime]]:
    """What this installation has on the engine, by the ids of servings: whether it runs, and when it was made.

    A container has the labels of its image too, and an image of a caller's own Dockerfile may have any: only one that
    is also named as a serving is, is ours.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        listed = engine().containers(all=True, filters={"label": f"{HOME_LABEL}={settings().resolved_serving_dir}"})
    return {
        one["Labels"][INSTANCE_LABEL]: (one["State"] == "running", datetime.fromtimestamp(one["Created"], UTC))
        for one in listed
        if f"/{name_of(one['Labels'].get(INSTANCE_LABEL, ''))}" in one["Names"]
    }


def stop_container(instance_id: str) -> None:
    """Ask it to end, and end it if it does not; harmless where there is none.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            engine().stop(name_of(instance_id), timeout=STOP_SECONDS)
        except NotFound:
            return
