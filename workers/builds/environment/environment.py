"""What an environment is made from, and when two are one.

Environments: a base image with an algorithm's requirements installed, made once for equal requirements.

They are installed in a container, out of which one directory is taken as a layer: what the steps are given (the package
index with its password, the certificates) is thereby in no layer, configuration or history of an image.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.source_tree import SourceTree
from workers.builds.base_image import BaseImage, base_image
from workers.builds.environment.container import BUILDER, ENVIRONMENT, BuildContainer, build_container
from workers.builds.environment.installation import PYTHON, Installation
from workers.builds.environment.spec import EnvironmentSpec, environment_key, requirements_key
from workers.builds.limits import BuildWatch
from workers.images.archive import Entry, archived, parent_entries
from workers.images.image import Image, Step, derived_image, named_image
from workers.images.image_store import StoreUse
from workers.images.layers import Layer, add_layer, fast, installed_entries

KEY = "io.longshore.environment"
"""The annotation with the environment's key."""
LOCK = "io.longshore.requirements"
"""The annotation with the lock: a line for each distribution that is installed."""


@dataclass(frozen=True)
class Environment:
    """An environment in the store; one made with the source has no key, since nobody else may use it."""

    image: Image
    key: str | None
    reused: bool


def ensure_environment(
    use: StoreUse,
    spec: EnvironmentSpec,
    tree: SourceTree,
    watch: BuildWatch,
    lock_directory: Path | None = None,
) -> Environment:
    """Find the environment in the store, which needs no engine, or make it.

    With a `lock_directory`, builds of one key on this machine wait for each other instead of doing the work twice.

    Raises:
        Stopped: the stop was asked for.
        WorkError: a requirement cannot be installed, or the time is used up (invalid); the index could not be
            reached (transient); the engine, the base image or the network is missing, or the store does not work
            (unavailable).
    """
    if spec.made_with is not None:
        known = named_image(use, f"environment/{spec.made_with}")
        if known is not None:
            watch.log(f"The image had environment {spec.made_with[:12]}, which is used again")
            return Environment(known, spec.made_with, reused=True)
    base = base_image(use, spec.base_image, watch, lock_directory)
    asked = requirements_key(spec, base)
    if asked is None:
        watch.log("The requirements name the source or a repository: this environment is made for this build alone")
        return _made(use, spec, base, tree, watch)
    resolved = f"requirements/{asked}"
    with watch.locked(lock_directory, asked):
        found = None if spec.refresh else named_image(use, resolved)
        if found is not None:
            key = found.manifest.annotations[KEY]
            watch.log(f"The requirements are installed already: environment {key[:12]} is used again")
            return Environment(found, key, reused=True)
        made = _made(use, spec, base, tree, watch)
        # Another machine may have resolved the same meanwhile: then all go on with what that one found.
        others = None if spec.refresh else named_image(use, resolved)
        if others is not None:
            return Environment(others, others.manifest.annotations[KEY], reused=True)
        use.name(resolved, made.image.manifest.descriptor)
        return made


def _made(use: StoreUse, spec: EnvironmentSpec, base: BaseImage, tree: SourceTree, watch: BuildWatch) -> Environment:
    """Install, and keep it unless the store has the same already under another name."""
    image_id = base.on_engine(use, watch)
    with build_container(image_id, spec.owner, spec.network, spec.limits, watch, commit=spec.commit) as container:
        installation = Installation(spec, base.path, tree, container)
        lock = installation.install()
        if not spec.requirements.shareable:
            installation.compile()
            return Environment(_kept(use, base, container, installation, {LOCK: lock}, watch), None, reused=False)
        key = environment_key(spec, base, lock)
        found = named_image(use, f"environment/{key}")
        if found is not None:
            watch.log(f"The same was installed before: environment {key[:12]} is used again")
            return Environment(found, key, reused=True)
        installation.compile()
        image = _kept(use, base, container, installation, {LOCK: lock, KEY: key}, watch)
        use.name(f"environment/{key}", image.manifest.descriptor)
        return Environment(image, key, reused=False)


def _kept(
    use: StoreUse,
    base: BaseImage,
    container: BuildContainer,
    installation: Installation,
    annotations: dict[str, str],
    watch: BuildWatch,
) -> Image:
    with watch.log.step("Keeping the environment"):
        layer = _layer(use, container, installation.directories)
        run_config = {
            "Env": [
                *(f"{name}={value}" for name, value in base.image.variables.items() if name != "PATH"),
                f"PATH={ENVIRONMENT}/bin:{base.path}",
                f"VIRTUAL_ENV={ENVIRONMENT}",
            ],
            "Entrypoint": [PYTHON],
            "Cmd": None,
            "User": f"{BUILDER}:{BUILDER}",
            "WorkingDir": "/",
        }
        return derived_image(use, base.image, [Step(layer, f"COPY {ENVIRONMENT}")], run_config, annotations)


def _layer(use: StoreUse, container: BuildContainer, directories: tuple[str, ...]) -> Layer:
    try:
        return add_layer(use, archived(_files(container, directories)), fast)
    except tarfile.TarError as error:
        raise WorkError(ErrorClass.TRANSIENT, f"the Docker engine broke off a build's files: {error}") from error


def _files(container: BuildContainer, directories: tuple[str, ...]) -> Iterator[Entry]:
    yield from parent_entries(*(directory.strip("/") for directory in directories))
    for directory in directories:
        with container.files_below(directory) as chunks:
            yield from installed_entries(chunks, directory.strip("/").rpartition("/")[0])
