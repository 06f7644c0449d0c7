"""Run the steps of an installation in a build container, which waits for them and is always removed."""

import hashlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, cast

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Ulimit

from shared.errors import ErrorClass, LongshoreError, WorkError
from workers.builds.context import BuildContext, BuildLimits, lines_of
from workers.builds.environment.command_output import STDOUT, read_output
from workers.builds.environment.disk_watch import disk_watch
from workers.docker.connection import EngineClient, engine, engine_errors, interruptible
from workers.docker.images import remove_container
from workers.docker.network import ensure_network
from workers.images.archive import Entry, archived, directory_entry, parent_entries

NAME_PREFIX = "longshore-build-"
"""Build containers are recognised by name: images of callers' own Dockerfiles may have any label."""
BUILDER = 65531
"""User and group of the installation. No other user has this number; it owns only the environment."""
ENVIRONMENT = "/opt/longshore/env"
PYTHON = f"{ENVIRONMENT}/bin/python"
WORK = "/opt/longshore/work"
"""Sources, certificates and temporary files of the build, outside of the environment."""
_USER = f"{BUILDER}:{BUILDER}"
RIGHTS_OF_THE_WATCH = ("DAC_READ_SEARCH", "SYS_PTRACE")
"""Capabilities of root, who only waits and measures here: processes of the build are not root's, and cannot become it
(`no-new-privileges`)."""
MAX_OPEN_FILES = 16_384
"""Limit for one process of a build."""
NO_PROGRAM = "executable file not found"
"""The engine's message when an image does not have the program that is to be run."""
_WAIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
"""The first process: waits, and reaps the processes that others leave behind."""
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class BuildContainer:
    """A running build container. Every method can be cancelled, and ends at the deadline."""

    container_id: str
    context: BuildContext

    def put(self, entries: Iterable[Entry]) -> None:
        """Unpack these members of a tar at the root of the container. Raises as `interruptible`."""
        with tempfile.SpooledTemporaryFile(max_size=1024 * 1024) as archive:
            archive.writelines(archived(entries))
            archive.seek(0)
            with interruptible(self.context.stop, self.context.deadline) as client:
                client.put_archive(self.container_id, "/", cast("BinaryIO", archive))

    def run(
        self,
        command: list[str],
        environment: Mapping[str, str],
        directory: str,
        log: Callable[[str], None],
    ) -> int:
        """Run a command, pass each line that it prints to `log`, and return its exit code.

        The environment variables are not in the container's configuration.

        Raises:
            WorkCancelledError, WorkError: as `interruptible`; also if the engine lost the command (unavailable).
        """
        with interruptible(self.context.stop, self.context.deadline) as client:
            command_id = client.exec_create(
                self.container_id, command, user=_USER, environment=dict(environment), workdir=directory
            )["Id"]
            client.exec_start(command_id, stream=True)
            for line in lines_of(read_output(client.last_response)):
                log(line)
        with engine_errors():
            state = engine().exec_inspect(command_id)
        if state["ExitCode"] is None:
            raise WorkError(ErrorClass.UNAVAILABLE, "the Docker engine lost a running build; the job waits")
        return int(state["ExitCode"])

    @contextmanager
    def attached(
        self, command: list[str], environment: Mapping[str, str], directory: str
    ) -> Iterator["AttachedCommand"]:
        """Run a command during the block, with access to its streams. Raises as `interruptible`."""
        with interruptible(self.context.stop, self.context.deadline) as client:
            command_id = client.exec_create(
                self.container_id, command, user=_USER, stdin=True, environment=dict(environment), workdir=directory
            )["Id"]
            client.exec_start(command_id, socket=True)
            yield AttachedCommand(client)

    @contextmanager
    def archive_of(self, path: str) -> Iterator[Iterator[bytes]]:
        """Yield a tar of a directory as the engine writes it: sorted by name, below the last part of the path.

        Raises as `interruptible`.
        """
        with interruptible(self.context.stop, self.context.deadline) as client:
            chunks, _ = client.get_archive(self.container_id, path, chunk_size=_CHUNK_BYTES)
            yield chunks


class StreamClosedError(LongshoreError):
    """Raised when a command in a container reads no more input, because it or its container has ended."""


class AttachedCommand:
    """The streams of a command that runs in a container. Only `close` is thread-safe."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._response = client.last_response
        self._socket = cast("Any", self._response.raw)._fp.fp.raw._sock  # noqa: SLF001 - urllib3 has no public name

    def lines(self, max_length: int) -> Iterator[str]:
        """Yield the lines that the command prints, until one is longer or not ASCII."""
        rest = b""
        with suppress(OSError, ValueError, UnicodeDecodeError):  # closed, or no line
            for chunk in read_output(self._response, only=STDOUT):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode("ascii")
                if len(rest) > max_length:
                    return

    def write(self, data: bytes) -> None:
        """Write to the command's standard input.

        Raises:
            StreamClosedError: it has ended.
        """
        try:
            self._socket.sendall(data)
        except (OSError, ValueError):
            raise StreamClosedError("the command in the build container has ended") from None

    def close(self) -> None:
        self._client.shut()


@contextmanager
def build_container(
    image_id: str, owner: str, network: str, limits: BuildLimits, context: BuildContext, *, commit: str = ""
) -> Iterator[BuildContainer]:
    """Run a container of the image without privileges and within the limits, and remove it at the end.

    After a block that succeeded, the removal continues in a thread.

    Raises:
        WorkCancelledError, WorkError: as `interruptible`; also if the network does not exist (unavailable).
    """
    name = f"{name_prefix(owner, commit)}{uuid.uuid4().hex}"
    remover = engine()
    ensure_network(network)
    try:
        with interruptible(context.stop, context.deadline) as client:
            created = client.create_container(
                image_id,
                name=name,
                labels={"longshore.owner": owner, "longshore.commit": commit},  # for operators
                entrypoint=["python3", "-c", _WAIT],
                command=[],
                user="0:0",
                working_dir="/",
                host_config=client.create_host_config(
                    network_mode=network,
                    mem_limit=limits.memory_bytes,
                    memswap_limit=limits.memory_bytes,
                    nano_cpus=int(limits.cpus * 1_000_000_000),
                    pids_limit=limits.pids,
                    cap_drop=["ALL"],
                    cap_add=list(RIGHTS_OF_THE_WATCH),
                    security_opt=["no-new-privileges"],
                    # A single file cannot exceed the limit of all. The engine stores no log, because nothing reads it.
                    ulimits=[
                        Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
                        Ulimit(name="core", soft=0, hard=0),
                        Ulimit(name="nofile", soft=MAX_OPEN_FILES, hard=MAX_OPEN_FILES),
                    ],
                    log_config=LogConfig(type="none"),
                ),
                use_config_proxy=False,
            )
            container = BuildContainer(created["Id"], context)
            container.put(_directories())
            _start(client, container.container_id, network)
        with disk_watch(container.container_id, BUILDER, limits, context):
            yield container
    except BaseException:
        _remove_quietly(name, remover)
        raise
    # Deleting ten thousand files takes seconds; the job need not wait for it.
    threading.Thread(target=_remove_quietly, args=(name, remover)).start()


def name_prefix(owner: str, commit: str) -> str:
    """Return the beginning of the names of a build's containers. No other owner's begin so, whatever his name is."""
    return f"{NAME_PREFIX}{hashlib.sha256(f'{owner}/{commit}'.encode()).hexdigest()[:32]}-"


def remove_leftover_containers(older_than: timedelta, prefix: str = NAME_PREFIX) -> int:
    """Remove the build containers that a killed worker left behind, and return their number.

    `older_than` must be longer than the time limit of builds, so that no running build is affected; or zero, with the
    `prefix` of a commit that no other job is building.

    Raises:
        ValueError: `prefix` could match containers that are no builds.
        WorkError: the engine does not respond (unavailable).
    """
    if not prefix.startswith(NAME_PREFIX):
        raise ValueError(f"{prefix!r} does not begin with {NAME_PREFIX!r}")
    before = datetime.now(UTC) - older_than
    with engine_errors():
        containers = engine().containers(all=True, filters={"name": prefix})
    removed = 0
    for container in containers:
        # The engine's filter matches the text anywhere in a name.
        is_build = any(name.lstrip("/").startswith(prefix) for name in container["Names"])
        if is_build and datetime.fromtimestamp(container["Created"], UTC) < before:
            remove_container(container["Id"])
            removed += 1
    return removed


def _remove_quietly(name: str, client: APIClient) -> None:
    # If the engine is gone, that is reported elsewhere, and a later job removes the container.
    with suppress(WorkError):
        remove_container(name, client)


def _start(client: APIClient, container_id: str, network: str) -> None:
    """Start a container. An operator has to fix the cause if it does not start, so the job waits."""
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
            ErrorClass.UNAVAILABLE,
            "the base image (`longshore environments`) has no python3 on its path; the job waits",
        ) from error


def _directories() -> Iterator[Entry]:
    yield from parent_entries(ENVIRONMENT.strip("/"))
    yield directory_entry(WORK.strip("/"))
    for directory in (ENVIRONMENT, *(f"{WORK}/{name}" for name in ("source", "home", "scratch", "pip"))):
        yield directory_entry(directory.strip("/"), BUILDER)
