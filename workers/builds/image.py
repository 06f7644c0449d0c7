"""Build algorithm images from the source of one commit, and keep them in the image store.

An image is an environment, then the runner, then the source. Longshore assembles it without running a container: the
runner's layer is the same for all algorithms and the source's is small, so a change of source alone is little to push.
No text of a caller becomes an instruction of the build, unless a repository's own Dockerfile is allowed.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkError
from shared.registry.reference import normalize_name
from workers.builds.context import BuildContext, BuildLog, url_secrets
from workers.builds.dockerfile import ALGORITHM, DOCKERFILE, REVISION, build_by_dockerfile
from workers.builds.entry import find_entry
from workers.builds.environment.container import PYTHON
from workers.builds.environment.environment import ensure_environment
from workers.builds.environment.requirements import read_requirements
from workers.builds.environment.spec import BuildSettings, EnvironmentSpec
from workers.builds.source_tree import SourceTree, open_source_tree
from workers.docker.images import described_image, local_reference, remove_reference
from workers.images.archive import Entry, archived, directory_entry, file_entry, parent_entries
from workers.images.engine_transfer import save_image
from workers.images.image import Image, Step, derived_image, image_name
from workers.images.image_store import StoreUse
from workers.images.layers import add_layer, reproducible_compressor
from workers.runner import ARGUMENTS, DIRECTORY, PORT, RUNS_AS, SOURCE_DIRECTORY

_RUNNER_FILES = Path(__file__).resolve().parents[1] / "runner"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, kw_only=True)
class BuildRequest(BuildSettings):
    """The source, settings and limits of one build.

    `source` is a plain tar of the commit's tree (`git archive`), a path or a seekable file object. `lock_directory` has
    the locks that builds on this machine share. `allow_dockerfile` lets the engine build the source's own Dockerfile,
    if it has one.
    """

    name: str
    source: Path | BinaryIO
    lock_directory: Path
    allow_dockerfile: bool = False

    @property
    def labels(self) -> dict[str, str]:
        path = f"{self.owner}/{self.name}"
        return {"org.opencontainers.image.title": path, REVISION: self.commit, ALGORITHM: path}


@dataclass(frozen=True)
class BuiltImage:
    """An image in the store. `image_id` is its id on engines: the digest of its configuration.

    `size_bytes` is the size of a push to an empty registry. `environment_key` is None if no other build can use the
    environment: it was made with the source, or by the source's own Dockerfile.
    """

    manifest_digest: str
    image_id: str
    size_bytes: int
    environment_key: str | None
    environment_reused: bool


def build_image(request: BuildRequest, use: StoreUse, log: Callable[[str], None], stop: CancelToken) -> BuiltImage:
    """Build the image of a commit, and first its environment if the store has no equal one.

    No engine is needed if the store has the environment. The image gets two names in the store: by its manifest's
    digest (`image_name`) and OWNER/NAME:COMMIT, normalized as in a registry.

    `log` gets the build's output line by line, masked and limited; the last line of a failed build is the cause.

    Raises:
        WorkCancelledError: the build was cancelled; none of its containers is left.
        WorkError: the source cannot be built, or took too long (invalid); the package index or the engine failed
            (transient); the engine, its disk, the base image, the network or the store is missing (unavailable).
    """
    build_log = BuildLog(log, request.limits.log_bytes, url_secrets(request.index_url or ""))
    context = BuildContext(build_log, stop, Deadline(request.limits.seconds), request.lock_directory)
    try:
        _check_names(request)
        with open_source_tree(request.source) as tree:
            if request.allow_dockerfile and tree.is_file(DOCKERFILE):
                return _name_image(
                    use,
                    _build_with_dockerfile(use, request, tree, context),
                    request,
                    environment_key=None,
                    environment_reused=False,
                )
            module = find_entry(tree, request.name, build_log)
            spec = EnvironmentSpec(
                base_image=request.base_image,
                requirements=read_requirements(tree, request.kit_requirement),
                owner=request.owner,
                commit=request.commit,
                kit_requirement=request.kit_requirement,
                index_url=request.index_url,
                index_networks=request.index_networks,
                ca_bundle=request.ca_bundle,
                network=request.network,
                limits=request.limits,
                refresh=request.refresh,
                made_with=request.made_with,
            )
            environment = ensure_environment(use, spec, tree, context)
            with build_log.step("Building the algorithm's image"):
                context.check()
                image = assemble_image(use, environment.image, module, request.labels, tree)
            return _name_image(
                use, image, request, environment_key=environment.key, environment_reused=environment.reused
            )
    except WorkError as error:
        build_log.add_failure(error.message)
        raise


def assemble_image(use: StoreUse, environment: Image, module: str, labels: dict[str, str], tree: SourceTree) -> Image:
    """Add the image of an algorithm to the store. `module` is its module in `src`.

    Equal parts give an equal digest, on every machine, at any time.

    Raises:
        WorkError: as the store raises.
    """
    runner = add_layer(use, archived(_runner_entries()), reproducible_compressor)
    top = SOURCE_DIRECTORY.strip("/")
    source = add_layer(use, archived(chain(parent_entries(top), tree.entries(top))), reproducible_compressor)
    variables = environment.variables | {
        "LONGSHORE_MODULE": module,
        "LONGSHORE_PORT": str(PORT),
        "PYTHONUNBUFFERED": "1",
    }
    run_config = {
        "Cmd": None,
        "Entrypoint": [PYTHON, *ARGUMENTS],
        "Env": [f"{key}={value}" for key, value in variables.items()],
        "ExposedPorts": {**environment.run_config.get("ExposedPorts", {}), f"{PORT}/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**(environment.run_config.get("Labels") or {}), **labels},
        "User": f"{RUNS_AS}:{RUNS_AS}",
        "WorkingDir": SOURCE_DIRECTORY,
    }
    return derived_image(
        use,
        environment,
        [Step(runner, f"COPY runner {DIRECTORY}"), Step(source, f"COPY algorithm {SOURCE_DIRECTORY}")],
        run_config,
    )


def _check_names(request: BuildRequest) -> None:
    for field, pattern, value in (
        ("owner", _OWNER, request.owner),
        ("name", _NAME, request.name),
        ("commit", _COMMIT, request.commit),
    ):
        if not pattern.fullmatch(value):
            raise WorkError(ErrorClass.INVALID, f"no image can be built with the {field} {value[:200]!r}")


def _build_with_dockerfile(use: StoreUse, request: BuildRequest, tree: SourceTree, context: BuildContext) -> Image:
    with context.log.step(f"Building the source's own {DOCKERFILE}"):
        reference = local_reference(request.owner, request.name, request.commit)
        image_id = build_by_dockerfile(tree, reference, request.labels, request.network, request.limits, context)
    try:
        size = int((described_image(image_id) or {}).get("Size") or 0)
        if size > request.limits.disk_bytes:
            raise WorkError(
                ErrorClass.INVALID,
                f"the image of the source's own {DOCKERFILE} has {size} bytes; the limit is "
                f"{request.limits.disk_bytes} (LONGSHORE_BUILD_MAX_BYTES)",
            )
        with context.log.step("Saving the image in the image store"):
            return save_image(use, image_id, context.stop, context.deadline)
    finally:
        with suppress(WorkError):  # the engine does not respond: the cause is reported by others
            remove_reference(reference)  # the store has a size limit and a garbage collector, the engine has neither


def _name_image(
    use: StoreUse, image: Image, request: BuildRequest, *, environment_key: str | None, environment_reused: bool
) -> BuiltImage:
    manifest = image.manifest.descriptor
    use.name(image_name(manifest.digest), manifest)
    use.name(f"{normalize_name(request.owner)}/{normalize_name(request.name)}:{request.commit}", manifest)
    return BuiltImage(
        manifest.digest, image.manifest.config.digest, image.size_bytes, environment_key, environment_reused
    )


def _runner_entries() -> Iterator[Entry]:
    top = DIRECTORY.strip("/")
    yield from parent_entries(top)
    yield directory_entry(top)
    files = {f"{top}/{file.relative_to(_RUNNER_FILES).as_posix()}": file for file in _RUNNER_FILES.rglob("*.py")}
    yield from (directory_entry(path) for path in sorted({posixpath.dirname(path) for path in files} - {top}))
    for path, file in sorted(files.items()):
        yield file_entry(path, file.read_bytes())
