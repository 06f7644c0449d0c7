"""Algorithm images: built out of the source of one commit, and kept in the image store.

Nothing that a caller writes becomes an instruction of the build, unless a repository's own Dockerfile is allowed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.registry.reference import normalize_name
from workers.builds.assembly.algorithm_image import algorithm_image
from workers.builds.assembly.source_tree import SourceTree, open_source
from workers.builds.dockerfile import ALGORITHM, DOCKERFILE, REVISION, build_by_dockerfile
from workers.builds.environment.environment import Environment, ensure_environment
from workers.builds.environment.installation import PYTHON
from workers.builds.environment.requirements import read_requirements
from workers.builds.environment.spec import EnvironmentSpec
from workers.builds.limits import BuildLimits, BuildWatch
from workers.builds.log import BuildLog, secrets_of_url
from workers.docker.images import local_reference, remove_reference
from workers.images.engine_transfer import save_image
from workers.images.image import Image, image_name
from workers.images.image_store import StoreUse
from workers.jobs.deadline import Deadline

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built, from what, and within which limits.

    `source` is a plain tar of the commit's tree (`git archive`), a path or a seekable file object. `index_url` may
    hold credentials. `ca_bundle` is PEM. `lock_directory` is where builds on this machine wait for one another.
    `refresh` resolves the requirements again; `made_with` is the key of the environment that the image had when it was
    built before; `allow_dockerfile` has the source's own Dockerfile built, if it has one.
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
    refresh: bool = False
    made_with: str | None = None
    allow_dockerfile: bool = False


@dataclass(frozen=True)
class BuiltImage:
    """An image in the store. `image_id` is that which engines know it by: the digest of its configuration.

    `size_bytes` is what a push to an empty registry sends. `environment_key` is None where there is no environment
    that another build could use: it was made with the source, or by the source's own Dockerfile.
    """

    manifest_digest: str
    image_id: str
    size_bytes: int
    environment_key: str | None
    environment_reused: bool


def build_image(request: BuildRequest, use: StoreUse, log: Callable[[str], None], stop: CancelToken) -> BuiltImage:
    """Build the image of a commit, its environment first where no equal one is in the store.

    Where the store has the environment no engine is needed. The image is named twice, by its manifest's digest
    (`image_name`) and as OWNER/NAME:COMMIT, mended as in a registry.

    `log` is given the build's output line by line, masked and cut at the limit; its last line says why a build failed.

    Raises:
        Stopped: the stop was asked for; no container of the build is left.
        WorkError: the source cannot be built, or took too long (invalid); the package index or the engine failed
            (transient); the engine, its disk, the base image, the network or the store is missing (unavailable).
    """
    build_log = BuildLog(log, request.limits.log_bytes, secrets_of_url(request.index_url or ""))
    watch = BuildWatch(build_log, stop, Deadline(request.limits.seconds))
    try:
        _check_names(request)
        with open_source(request.source) as tree:
            if request.allow_dockerfile and tree.is_file(DOCKERFILE):
                return _built_by_dockerfile(use, request, tree, watch)
            _check_source(tree, request.name)
            environment = ensure_environment(use, _spec(request, tree), tree, watch, request.lock_directory)
            return _assembled(use, environment, request, tree, watch)
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
        refresh=request.refresh,
        made_with=request.made_with,
    )


def _assembled(
    use: StoreUse, environment: Environment, request: BuildRequest, tree: SourceTree, watch: BuildWatch
) -> BuiltImage:
    with watch.log.step("Building the algorithm's image"):
        watch.check()
        image = algorithm_image(use, environment.image, request.name, _labels(request), tree, PYTHON)
    return _named(use, image, request, environment.key, environment_reused=environment.reused)


def _built_by_dockerfile(use: StoreUse, request: BuildRequest, tree: SourceTree, watch: BuildWatch) -> BuiltImage:
    with watch.log.step(f"Building the source's own {DOCKERFILE}"):
        reference = local_reference(request.owner, request.name, request.commit)
        image_id = build_by_dockerfile(tree, reference, _labels(request), request.network, request.limits, watch)
    with watch.log.step("Bringing the image into the image store"):
        image = save_image(use, image_id, watch.stop, watch.deadline)
        remove_reference(reference)  # the store has a limit and a collector, the engine has neither
    return _named(use, image, request, None, environment_reused=False)


def _named(
    use: StoreUse, image: Image, request: BuildRequest, environment_key: str | None, *, environment_reused: bool
) -> BuiltImage:
    manifest = image.manifest.descriptor
    use.name(image_name(manifest.digest), manifest)
    use.name(f"{normalize_name(request.owner)}/{normalize_name(request.name)}:{request.commit}", manifest)
    return BuiltImage(
        manifest.digest, image.manifest.config.digest, image.size_bytes, environment_key, environment_reused
    )


def _labels(request: BuildRequest) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": f"{request.owner}/{request.name}",
        REVISION: request.commit,
        ALGORITHM: f"{request.owner}/{request.name}",
    }
