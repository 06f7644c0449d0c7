"""The container in which an environment is installed: it waits, steps are run in it, and it is always removed."""

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BufferedIOBase
from typing import Any, BinaryIO, cast

import requests
from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import Mount

from shared.errors import ErrorClass, WorkError
from shared.registry.reference import normalize_name
from workers.builds.limits import BuildLimits, BuildWatch
from workers.builds.log import lines_of
from workers.docker.connection import engine, engine_errors, interruptible
from workers.images.archive import Entry, archived, directory_entry

NAME_PREFIX = "longshore-build-"
"""Build containers are known by name: images of callers' own Dockerfiles may have any label."""
BUILDER = 65531
"""User and group that installs. Nobody else has this number; it owns nothing but the environment."""
ENVIRONMENT = "/opt/longshore/env"
WORK = "/opt/longshore/work"
"""Where sources, certificates and temporary files of the build are: a volume beside the environment, no part of it."""
_WAIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
"""What the first process does: nothing, but collecting the processes that the others leave behind."""
_FRAME_HEADER_BYTES = 8
_CHUNK_BYTES = 1024 * 1024
NO_PROGRAM = "executable file not found"
"""How the engine says that an image lacks what it is to run."""


@dataclass(frozen=True)
class BuildContainer:
    """A running build container. Every call can be stopped, and ends at the deadline."""

    container_id: str
    watch: BuildWatch

    def put(self, entries: Iterable[Entry]) -> None:
        """Unpack these members of a tar at the root of the container.

        Raises:
            Stopped, WorkError: as `interruptible` says.
        """
        with tempfile.SpooledTemporaryFile(max_size=1024 * 1024) as archive:
            archive.writelines(archived(entries))
            archive.seek(0)
            with interruptible(self.watch.stop, self.watch.deadline) as client:
                client.put_archive(self.container_id, "/", cast("BinaryIO", archive))

    def run(
        self,
        command: list[str],
        environment: Mapping[str, str],
        directory: str,
        log: Callable[[str], None],
    ) -> int:
        """Run a command, hand each line that it prints to `log`, and give its exit code.

        The environment variables are the command's alone: they are in no configuration of the container.

        Raises:
            Stopped, WorkError: as `interruptible` says; also when the engine lost the command (unavailable).
        """
        with interruptible(self.watch.stop, self.watch.deadline) as client:
            command_id = client.exec_create(
                self.container_id, command, environment=dict(environment), workdir=directory
            )["Id"]
            client.exec_start(command_id, stream=True)
            for line in lines_of(_output(client.last_response)):
                log(line)
        with engine_errors():
            state = engine().exec_inspect(command_id)
        if state["ExitCode"] is None:
            raise WorkError(ErrorClass.UNAVAILABLE, "the Docker engine lost a build that it ran; the job waits")
        return int(state["ExitCode"])

    @contextmanager
    def files_below(self, path: str) -> Iterator[Iterator[bytes]]:
        """A tar of a directory of the container, as the engine writes it: in the order of names, below the last part
        of the path.

        Raises:
            Stopped, WorkError: as `interruptible` says.
        """
        with interruptible(self.watch.stop, self.watch.deadline) as client:
            chunks, _ = client.get_archive(self.container_id, path, chunk_size=_CHUNK_BYTES)
            yield chunks


@contextmanager
def build_container(
    image_id: str, owner: str, network: str, limits: BuildLimits, watch: BuildWatch, *, commit: str = ""
) -> Iterator[BuildContainer]:
    """A container of the image that has no privileges, stays within the limits, and is removed at the end.

    When the block succeeded, its removal goes on for a while in a thread of its own.

    Raises:
        Stopped, WorkError: as `interruptible` says; also when there is no such network (unavailable).
    """
    name = f"{name_prefix(owner, commit)}{uuid.uuid4().hex}"
    remover = engine()
    try:
        with interruptible(watch.stop, watch.deadline) as client:
            created = client.create_container(
                image_id,
                name=name,
                entrypoint=["python3", "-c", _WAIT],
                command=[],
                user=f"{BUILDER}:{BUILDER}",
                working_dir="/",
                host_config=client.create_host_config(
                    network_mode=network,
                    mem_limit=limits.memory_bytes,
                    memswap_limit=limits.memory_bytes,
                    nano_cpus=int(limits.cpus * 1_000_000_000),
                    pids_limit=limits.pids,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    mounts=[Mount(target=WORK, source=None, type="volume")],
                ),
                use_config_proxy=False,
            )
            container = BuildContainer(created["Id"], watch)
            container.put(_directories())
            _start(client, container.container_id, network)
        yield container
    except BaseException:
        _remove_quietly(name, remover)
        raise
    # Deleting ten thousand files takes seconds, for which nobody who waits for the image needs to wait.
    threading.Thread(target=_remove_quietly, args=(name, remover)).start()


def _remove_quietly(name: str, client: APIClient) -> None:
    """An engine that just went away is reported elsewhere; `remove_left_overs` sees to the container then."""
    with suppress(WorkError):
        remove_container(name, client)


def name_prefix(owner: str, commit: str = "") -> str:
    """What the names of the owner's build containers begin with; of those for one commit, if it is named."""
    return f"{NAME_PREFIX}{normalize_name(owner)}-" + (f"{commit[:12]}-" if commit else "")


def remove_left_overs(older_than: timedelta, prefix: str = NAME_PREFIX) -> int:
    """Remove the build containers that a killed worker left behind, and give their number.

    `older_than` must be longer than a build may take, so that none that runs is removed; or zero, with the `prefix` of
    a commit that nobody else can be building now.

    Raises:
        ValueError: `prefix` could match containers that are no builds.
        WorkError: the engine does not answer (unavailable).
    """
    if not prefix.startswith(NAME_PREFIX):
        raise ValueError(f"{prefix!r} does not begin with {NAME_PREFIX!r}")
    before = datetime.now(UTC) - older_than
    removed = 0
    for container_id, created in _containers_named(prefix):
        if created < before:
            remove_container(container_id)
            removed += 1
    return removed


def _containers_named(prefix: str) -> list[tuple[str, datetime]]:
    """Ids and times of making. The engine looks for a name anywhere in the names, so they are looked at again here."""
    with engine_errors():
        found = engine().containers(all=True, filters={"name": prefix})
    return [
        (container["Id"], datetime.fromtimestamp(container["Created"], UTC))
        for container in found
        if any(name.lstrip("/").startswith(prefix) for name in container["Names"])
    ]


def remove_container(container: str, client: APIClient | None = None) -> None:
    """Remove a container with its volumes, also one that runs; one that is gone is no news.

    With a `client` it is that one's engine, whatever is named as the engine by then.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            (client or engine()).remove_container(container, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error.explanation):
                raise


def _start(client: APIClient, container_id: str, network: str) -> None:
    """What is wrong with a container that does not start, is for an operator to mend: the job waits until then."""
    try:
        client.start(container_id)
    except NotFound as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"builds cannot start on the network {network!r} (LONGSHORE_BUILD_NETWORK): "
            f"{error.explanation}; the job waits",
        ) from error
    except APIError as error:
        if NO_PROGRAM not in str(error.explanation):
            raise
        raise WorkError(
            ErrorClass.UNAVAILABLE, "the base image (LONGSHORE_BASE_IMAGE) has no python3 on its path; the job waits"
        ) from error


def _directories() -> Iterator[Entry]:
    yield directory_entry("opt")
    yield directory_entry("opt/longshore")
    yield directory_entry(ENVIRONMENT.strip("/"), BUILDER)
    for directory in ("source", "home", "scratch", "pip"):
        yield directory_entry(f"{WORK.strip('/')}/{directory}", BUILDER)


def _output(response: requests.Response) -> Iterator[bytes]:
    """What a command prints, out of the engine's frames (Engine API, "Attach to a container": stream format).

    docker-py's own reader takes the bytes from below the HTTP client's buffer, and so loses those that came with the
    headers; this one reads through it.
    """
    reader: BufferedIOBase = cast("Any", response.raw)._fp.fp
    while len(header := reader.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES:
        yield reader.read(int.from_bytes(header[4:], "big"))
