"""Make environments: a base image with an algorithm's requirements installed, made once for equal requirements.

The installation runs in a container, of which one directory becomes a layer. The inputs of its steps (the address
of the package index, the certificates) are therefore in no layer, configuration or history of an image.
"""

import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from shared.errors import ErrorClass, WorkError
from workers.builds.base_image import BaseImage, ensure_base_image
from workers.builds.context import BuildContext, BuildLimits
from workers.builds.environment.container import BUILDER, ENVIRONMENT, PYTHON, BuildContainer, build_container
from workers.builds.environment.index_relay import IndexRelay, index_relay
from workers.builds.environment.installation import Installation
from workers.builds.environment.package_index import PackageIndex
from workers.builds.environment.spec import EnvironmentSpec, environment_key, requirements_key, shared_environment_key
from workers.builds.source_tree import SourceTree
from workers.images.archive import Entry, archived, parent_entries
from workers.images.engine_transfer import load_image
from workers.images.image import Image, Step, derived_image, named_image
from workers.images.image_store import StoreUse
from workers.images.layers import Layer, add_layer, fast_compressor, installed_entries

KEY = "io.longshore.environment"
LOCK = "io.longshore.requirements"
"""The annotation with the lock: a line for each distribution that is installed."""
OWNER = "io.longshore.owner"
"""The annotation with the owner who may use the environment."""
EVERYBODY = "*"
"""In place of an owner's name; no name of an owner has this character."""


@dataclass(frozen=True)
class Environment:
    """An environment in the store. One that was made with the source has no key, because no other build may use it."""

    image: Image
    key: str | None
    reused: bool


def ensure_environment(use: StoreUse, spec: EnvironmentSpec, tree: SourceTree, context: BuildContext) -> Environment:
    """Return the environment from the store, which needs no engine, or make it.

    Builds of one key on this machine wait for each other instead of making it twice.

    Raises:
        WorkCancelledError: the build was cancelled.
        WorkError: a requirement cannot be installed, or the time is used up (invalid); the index could not be
            reached (transient); the engine, the base image, the network or the store is missing (unavailable).
    """
    if spec.made_with is not None:
        earlier = _find(use, f"environment/{spec.made_with}", spec)
        if earlier is not None:
            context.log(f"Reusing environment {spec.made_with[:12]}, which the image had before")
            return earlier
    base = ensure_base_image(use, spec.base_image, context)
    requested = requirements_key(spec, base)
    if requested is None:
        context.log("The requirements refer to the source or a repository: this environment is for this build only")
        return _make_environment(use, spec, base, tree, context)
    name = f"requirements/{requested}"
    with context.locked(requested):
        resolved = None if spec.refresh else _find(use, name, spec)
        if resolved is not None:
            context.log(f"The requirements are installed already: reusing environment {str(resolved.key)[:12]}")
            return resolved
        made = _make_environment(use, spec, base, tree, context)
        # Another machine may have resolved the same meanwhile: then all use its environment.
        resolved = None if spec.refresh else _find(use, name, spec)
        if resolved is not None:
            return resolved
        use.name(name, made.image.manifest.descriptor)
        return made


def _find(use: StoreUse, name: str, spec: EnvironmentSpec) -> Environment | None:
    """Return the environment with a name, unless it is of another owner or without one (of an older release)."""
    image = named_image(use, name)
    if image is None or image.manifest.annotations.get(OWNER) != _owner_annotation(spec):
        return None
    return Environment(image, image.manifest.annotations[KEY], reused=True)


def _owner_annotation(spec: EnvironmentSpec) -> str:
    return EVERYBODY if spec.owner_of_key is None else spec.owner_of_key


def _make_environment(
    use: StoreUse, spec: EnvironmentSpec, base: BaseImage, tree: SourceTree, context: BuildContext
) -> Environment:
    """Install, and save the result unless the store has an equal environment of the owner under another name."""
    with build_container(
        load_image(use, base.image, context.stop, context.deadline),
        spec.owner,
        spec.network,
        spec.limits,
        context,
        commit=spec.commit,
    ) as container:
        installation = Installation(spec, base, tree, container)
        with _relay_to_index(spec, container) as relay:
            lock = installation.install(relay)
        if not spec.requirements.shareable:
            installation.compile()
            layer = _save_layer(use, container, installation, spec.limits)
            return Environment(_add_image(use, base, layer, {LOCK: lock}), None, reused=False)
        key = environment_key(spec, base, lock)
        if spec.owner_of_key is not None:
            equal = _find(use, f"environment/{key}", spec)
            if equal is not None:
                context.log(f"The same was installed before: reusing environment {key[:12]}")
                return equal
        installation.compile()
        layer = _save_layer(use, container, installation, spec.limits)
        if spec.owner_of_key is None:
            key = shared_environment_key(spec, base, layer.diff_id)
        image = _add_image(use, base, layer, {LOCK: lock, KEY: key, OWNER: _owner_annotation(spec)})
        use.name(f"environment/{key}", image.manifest.descriptor)
        return Environment(image, key, reused=False)


def _relay_to_index(spec: EnvironmentSpec, container: BuildContainer) -> AbstractContextManager[IndexRelay | None]:
    if spec.index_url is None or not (spec.requirements.files or spec.kit_requirement):
        return nullcontext()
    return index_relay(
        container,
        PackageIndex(
            spec.index_url, spec.ca_bundle, spec.index_networks, spec.limits.disk_bytes, container.context.stop
        ),
    )


def _save_layer(use: StoreUse, container: BuildContainer, installation: Installation, limits: BuildLimits) -> Layer:
    with container.context.log.step("Saving the environment in the image store"):
        try:
            files = _limited(_installed_files(container, installation.directories), limits)
            return add_layer(use, archived(files), fast_compressor)
        except tarfile.TarError as error:
            raise WorkError(
                ErrorClass.TRANSIENT, f"the Docker engine sent an incomplete archive of a build's files: {error}"
            ) from error


def _add_image(use: StoreUse, base: BaseImage, layer: Layer, annotations: dict[str, str]) -> Image:
    return derived_image(
        use,
        base.image,
        [Step(layer, f"COPY {ENVIRONMENT}")],
        {
            "Env": [
                *(f"{name}={value}" for name, value in base.image.variables.items() if name != "PATH"),
                f"PATH={ENVIRONMENT}/bin:{base.path}",
                f"VIRTUAL_ENV={ENVIRONMENT}",
            ],
            "Entrypoint": [PYTHON],
            "Cmd": None,
            "User": f"{BUILDER}:{BUILDER}",
            "WorkingDir": "/",
        },
        annotations,
    )


def _installed_files(container: BuildContainer, directories: tuple[str, ...]) -> Iterator[Entry]:
    yield from parent_entries(*(directory.strip("/") for directory in directories))
    for directory in directories:
        with container.archive_of(directory) as chunks:
            yield from installed_entries(chunks, directory.strip("/").rpartition("/")[0])


def _limited(entries: Iterator[Entry], limits: BuildLimits) -> Iterator[Entry]:
    """Yield the entries within the limits. Holes of sparse files use space in the archive, but not on the disk.

    Raises:
        WorkError: there are more (invalid).
    """
    size = 0
    for number, (entry, content) in enumerate(entries, start=1):
        size += entry.size
        if size > limits.disk_bytes or number > limits.files:
            raise WorkError(
                ErrorClass.INVALID,
                f"the requirements install more than {limits.disk_bytes} bytes or {limits.files} files, the limits of "
                "LONGSHORE_BUILD_MAX_BYTES and LONGSHORE_BUILD_MAX_FILES",
            )
        yield entry, content
