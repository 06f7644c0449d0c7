"""Base images: what environments are made on. The engine pulls them once; from then on the store has them too."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError

from shared.errors import ErrorClass, WorkError
from workers.builds.limits import BuildWatch
from workers.docker.connection import interruptible
from workers.docker.images import described_image, image_id_of
from workers.images.engine_transfer import load_image, save_image
from workers.images.image import Image, named_image
from workers.images.image_store import StoreUse

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class BaseImage:
    """A base image in the store, and what it is called (`LONGSHORE_BASE_IMAGE`)."""

    name: str
    image: Image

    @property
    def image_id(self) -> str:
        """Its id on engines: the digest of its configuration."""
        return self.image.manifest.config.digest

    @property
    def path(self) -> str:
        """The search path for programs that it sets."""
        return self.image.variables.get("PATH") or _SYSTEM_PATH

    def on_engine(self, use: StoreUse, watch: BuildWatch) -> str:
        """See to it that the engine has the image, and give its id.

        Raises:
            Stopped, WorkError: as `load_image` says.
        """
        return load_image(use, self.image, watch.stop, watch.deadline)


def base_image(use: StoreUse, name: str, watch: BuildWatch, lock_directory: Path | None) -> BaseImage:
    """The base image that the name stands for on the engine, else for the store, else in its registry.

    An engine that does not answer is not needed where the store knows what the name stood for last.

    Raises:
        Stopped: the stop was asked for.
        WorkError: the engine does not answer, or it cannot pull the image (unavailable); as the store says.
    """
    last = named_image(use, _last(name))
    try:
        image_id = image_id_of(name)
    except WorkError:
        if last is None:
            raise
        return BaseImage(name, last)
    if image_id is None and last is not None:
        return BaseImage(name, last)
    if image_id is None:
        image_id = _pulled(name, watch)
    found = _stored(use, name, image_id, watch, lock_directory)
    if last is None or last.manifest.descriptor.digest != found.manifest.descriptor.digest:
        use.name(_last(name), found.manifest.descriptor)
    return BaseImage(name, found)


def _stored(use: StoreUse, name: str, image_id: str, watch: BuildWatch, lock_directory: Path | None) -> Image:
    key = f"base/{image_id.partition(':')[2]}"
    found = named_image(use, key)
    if found is None:
        with watch.locked(lock_directory, key.replace("/", "-")):
            found = named_image(use, key)
            if found is None:
                with watch.log.step(f"Bringing the base image {name} into the image store"):
                    found = save_image(use, image_id, watch.stop, watch.deadline)
                use.name(key, found.manifest.descriptor)
    return found


def _last(name: str) -> str:
    """The store's name for what the name stood for last; a hash, because references may have any characters."""
    return f"base-name/{hashlib.sha256(name.encode()).hexdigest()}"


def _pulled(name: str, watch: BuildWatch) -> str:
    with watch.log.step(f"Pulling the base image {name}"), interruptible(watch.stop, watch.deadline) as client:
        try:
            failures = [part["error"] for part in client.pull(name, stream=True, decode=True) if "error" in part]
        except APIError as error:
            failures = [str(error.explanation)]
    if failures:
        raise _no_base_image(name, failures[0])
    found = described_image(name)
    if found is None:
        raise _no_base_image(name, "it was removed at this very moment")
    return str(found["Id"])


def _no_base_image(name: str, why: str) -> WorkError:
    return WorkError(
        ErrorClass.UNAVAILABLE,
        f"the base image {name} (LONGSHORE_BASE_IMAGE) is not on the Docker engine and cannot be pulled: "
        f"{why}; the job waits",
    )
