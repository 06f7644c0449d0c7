"""Algorithm images: an environment, the runner and the source of one commit.

Nothing that a caller writes becomes an instruction of the build: the Dockerfile is made here, out of names that were
looked at, and the source is one directory of a context of which we write every entry.
"""

import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.errors import ErrorClass, WorkError
from shared.registry.reference import mended
from shared.stopping import StopSignal
from workers.engine.connection import NO_SPACE, disk_is_full, engine_address, interruptible
from workers.engine.container import ENVIRONMENT
from workers.engine.cut_short import ALGORITHM, REVISION
from workers.engine.environment import Environment, EnvironmentSpec, ensure_environment
from workers.engine.images import described_image, remove_reference
from workers.engine.limits import BuildLimits, Deadline
from workers.engine.log import BuildLog, secrets_of_url
from workers.engine.requirements import read_requirements
from workers.engine.source import SourceTree, add_file, new_archive, open_source
from workers.engine.watch import BuildWatch
from workers.runner import ARGUMENTS, DIRECTORY, SOURCE_DIRECTORY

RUNNER_SOURCE = Path(__file__).resolve().parent.parent / "runner"
PORT = 8080
RUNS_AS = 65532
"""User and group of a running algorithm: another than the one that installed, so it cannot change what is installed."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built, from what, and within which limits.

    `source` is a plain tar of the commit's tree (`git archive`), a path or a seekable file object. `index_url` may
    hold credentials. `ca_bundle` is PEM. `lock_directory` is where builds on this machine wait for one another.
    """

    owner: str
    name: str
    commit: str
    source: Path | BinaryIO
    base_image: str
    kit_requirement: str
    index_url: str | None
    ca_bundle: bytes | None
    network: str
    limits: BuildLimits
    lock_directory: Path | None = None


@dataclass(frozen=True)
class BuiltImage:
    """An image on the engine. `environment_key` is None where the environment was made with the source."""

    image_id: str
    size_bytes: int
    environment_key: str | None
    environment_reused: bool


def local_reference(owner: str, name: str, commit: str) -> str:
    """What the engine calls the image of a commit."""
    return f"longshore/{mended(owner)}/{mended(name)}:{commit}"


def build_image(request: BuildRequest, log: Callable[[str], None], stop: StopSignal) -> BuiltImage:
    """Build the image of a commit, its environment first where no equal one is on the engine.

    `log` is given the build's output line by line, masked and cut at the limit; its last line says why a build failed.

    Raises:
        Stopped: the stop was asked for; no container of the build is left.
        WorkError: the source cannot be built, or took too long (invalid); the package index or the engine failed
            (transient); the engine, its disk, the base image or the network is missing (unavailable).
    """
    build_log = BuildLog(log, request.limits.log_bytes, secrets_of_url(request.index_url or ""))
    watch = BuildWatch(build_log, stop, Deadline(request.limits.seconds))
    try:
        _check_names(request)
        with open_source(request.source) as tree:
            _check_source(tree, request.name)
            environment = ensure_environment(_spec(request, tree), tree, watch, request.lock_directory)
            return _build_on(environment, request, tree, watch)
    except WorkError as error:
        build_log.last_word(error.message)
        raise


def _check_names(request: BuildRequest) -> None:
    for what, pattern, value in (
        ("owner", _OWNER, request.owner),
        ("name", _NAME, request.name),
        ("commit", _COMMIT, request.commit),
    ):
        if not pattern.fullmatch(value):
            raise WorkError(ErrorClass.INVALID, f"no image can be built with the {what} {value[:200]!r}")


def _check_source(tree: SourceTree, name: str) -> None:
    wanted = f"src/{name}.py"
    if tree.is_file(wanted):
        return
    if not tree.is_directory("src"):
        found = ", ".join(tree.names_in("")[:20]) or "nothing"
        why = f"there is no directory src (at the top there is: {found})"
    elif tree.exists(wanted):
        why = "what has that name is no regular file"
    else:
        why = f"in src there is: {', '.join(tree.names_in('src')[:20])}"
    raise WorkError(ErrorClass.INVALID, f"the source has no {wanted}: {why}")


def _spec(request: BuildRequest, tree: SourceTree) -> EnvironmentSpec:
    return EnvironmentSpec(
        base_image=request.base_image,
        requirements=read_requirements(tree),
        owner=request.owner,
        commit=request.commit,
        kit_requirement=request.kit_requirement,
        index_url=request.index_url,
        ca_bundle=request.ca_bundle,
        network=request.network,
        limits=request.limits,
    )


def _build_on(environment: Environment, request: BuildRequest, tree: SourceTree, watch: BuildWatch) -> BuiltImage:
    reference = local_reference(request.owner, request.name, request.commit)
    try:
        with watch.log.step("Building the algorithm's image"), tempfile.TemporaryFile() as context:
            _write_context(context, environment.image_id, request, tree)
            context.seek(0)
            image_id = _build(context, reference, request, watch)
    except BaseException:
        if environment.key is None:
            # Nothing names it and nothing was built on it.
            with suppress(WorkError):
                remove_reference(environment.image_id)
        raise
    described = described_image(image_id)
    if described is None:
        raise WorkError(ErrorClass.TRANSIENT, "the image was removed from the Docker engine as soon as it was built")
    return BuiltImage(str(described["Id"]), int(described["Size"]), environment.key, environment.reused)


def _build(context: BinaryIO, reference: str, request: BuildRequest, watch: BuildWatch) -> str:
    image_id = None
    with interruptible(watch.stop, watch.deadline) as client:
        for part in client.build(
            fileobj=context,
            custom_context=True,
            tag=reference,
            rm=True,
            forcerm=True,
            decode=True,
            network_mode="none",
            container_limits={"memory": request.limits.memory_bytes, "memswap": request.limits.memory_bytes},
            use_config_proxy=False,
            timeout=int(watch.deadline.left) + 1,
        ):
            # The engine reports a failure inside an answer that began with 200.
            if "error" in part:
                raise _build_error(str(part["error"]))
            if "ID" in part.get("aux", {}):
                image_id = str(part["aux"]["ID"])
    if image_id is None:
        raise WorkError(ErrorClass.TRANSIENT, "the Docker engine ended the build without an image")
    return image_id


def _build_error(said: str) -> WorkError:
    if NO_SPACE in said.lower():
        return disk_is_full(f"the Docker engine at {engine_address()}")
    return WorkError(ErrorClass.TRANSIENT, f"the Docker engine could not put the image together: {said}")


def _labels(request: BuildRequest) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": f"{request.owner}/{request.name}",
        REVISION: request.commit,
        ALGORITHM: f"{request.owner}/{request.name}",
    }


def _write_context(target: BinaryIO, environment_id: str, request: BuildRequest, tree: SourceTree) -> None:
    with new_archive(target) as context:
        add_file(context, "Dockerfile", dockerfile(environment_id, request.name, _labels(request)).encode())
        _add_runner(context)
        tree.write_to(context, "algorithm")


def _add_runner(context: tarfile.TarFile) -> None:
    for file in sorted(RUNNER_SOURCE.rglob("*.py")):
        add_file(context, f"runner/{file.relative_to(RUNNER_SOURCE).as_posix()}", file.read_bytes())


def dockerfile(environment_id: str, name: str, labels: Mapping[str, str]) -> str:
    """The Dockerfile of an algorithm image: no step of it runs a command, so none needs a network.

    The labels come first: what a build leaves behind that is cut short is known by them.
    """
    variables = {
        "LONGSHORE_ALGORITHM_NAME": name,
        "LONGSHORE_PORT": str(PORT),
        "PYTHONUNBUFFERED": "1",
    }
    lines = [
        f"FROM {environment_id}",
        *(f"LABEL {key}={json.dumps(value)}" for key, value in labels.items()),
        f"COPY runner/ {DIRECTORY}/",
        f"COPY algorithm/ {SOURCE_DIRECTORY}/",
        *(f"ENV {key}={json.dumps(value)}" for key, value in variables.items()),
        f"WORKDIR {SOURCE_DIRECTORY}",
        f"USER {RUNS_AS}:{RUNS_AS}",
        f"EXPOSE {PORT}",
        "HEALTHCHECK NONE",
        "ENTRYPOINT " + json.dumps([f"{ENVIRONMENT}/bin/python", *ARGUMENTS]),
    ]
    return "\n".join(lines) + "\n"
