"""Base images, on which environments are made: pulled once by the engine, then kept in the image store."""

import hashlib
from dataclasses import dataclass

from docker.errors import APIError

from shared.errors import ErrorClass, WorkError
from workers.builds.context import BuildContext
from workers.docker.connection import interruptible
from workers.docker.images import image_id_of
from workers.images.engine_transfer import save_image
from workers.images.image import Image, named_image
from workers.images.image_store import StoreUse

PACKAGES_VARIABLE = "LONGSHORE_BASE_PACKAGES"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class BaseImage:
    """A base image in the store, and its reference."""

    name: str
    image: Image

    @property
    def image_id(self) -> str:
        return self.image.manifest.config.digest

    @property
    def path(self) -> str:
        return self.image.variables.get("PATH") or _SYSTEM_PATH

    @property
    def has_packages(self) -> bool:
        """Whether environments on it see the packages of its own Python, as those of the platform did."""
        return self.image.variables.get(PACKAGES_VARIABLE, "").lower() in ("1", "true", "yes")


def ensure_base_image(use: StoreUse, name: str, context: BuildContext) -> BaseImage:
    """Return the image of a reference: the engine's, else the store's last one, else pulled from its registry.

    An engine that does not respond is not needed if the store has the last image of this reference.

    Raises:
        WorkCancelledError: the build was cancelled.
        WorkError: the engine does not respond, or cannot pull the image (unavailable); as the store raises.
    """
    # A hash, because references may have any characters.
    last_name = f"base-name/{hashlib.sha256(name.encode()).hexdigest()}"
    last = named_image(use, last_name)
    try:
        image_id = image_id_of(name)
    except WorkError:
        if last is None:
            raise
        image_id = None
    if image_id is None and last is not None:
        return BaseImage(name, last)
    image = _save_image(use, name, image_id or _pull(name, context), context)
    if last is None or last.manifest.descriptor.digest != image.manifest.descriptor.digest:
        use.name(last_name, image.manifest.descriptor)
    return BaseImage(name, image)


def _save_image(use: StoreUse, name: str, image_id: str, context: BuildContext) -> Image:
    key = f"base/{image_id.partition(':')[2]}"
    image = named_image(use, key)
    if image is None:
        with context.locked(key.replace("/", "-")):
            image = named_image(use, key)
            if image is None:
                with context.log.step(f"Saving the base image {name} in the image store"):
                    image = save_image(use, image_id, context.stop, context.deadline)
                use.name(key, image.manifest.descriptor)
    return image


def _pull(name: str, context: BuildContext) -> str:
    with context.log.step(f"Pulling the base image {name}"), interruptible(context.stop, context.deadline) as client:
        try:
            failures = [event["error"] for event in client.pull(name, stream=True, decode=True) if "error" in event]
        except APIError as error:
            failures = [str(error.explanation)]
    image_id = None if failures else image_id_of(name)
    if image_id is None:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"the base image {name} (`longshore environments`) is not on the Docker engine and cannot be pulled: "
            f"{failures[0] if failures else 'it was removed after the pull'}; the job waits",
        )
    return image_id
