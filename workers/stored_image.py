"""Where the image of a push comes from: the engine, else a registry that has it, else it is built again."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select, update

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.models import Algorithm, Build, ImagePush, Registry
from shared.registries import open_own, repository_of
from shared.sealing import SealError, keyring
from shared.stopping import StopSignal
from workers.building import make_image
from workers.engine.images import has_image
from workers.engine.push import pull_image


@dataclass(frozen=True)
class StoredImage:
    """An image that is on this worker's engine now."""

    image_id: str
    remark: str = ""
    """What the status should say of where it came from."""


def stored_image(algorithm: Algorithm, build: Build, *, say: Callable[[str], None], stop: StopSignal) -> StoredImage:
    """The image of a succeeded build, brought onto the engine if another worker made it or it was removed.

    Raises:
        Stopped: the stop was asked for.
        WorkError: no way to the image worked.
    """
    if build.image_id is not None and has_image(build.image_id):
        return StoredImage(build.image_id)
    for push, registry in _good_pushes(build):
        say(f"The engine does not have the image; pulls it from {registry.registry_url}.")
        pulled = _pulled(algorithm, push, registry, say, stop)
        if pulled is not None:
            return StoredImage(pulled, f" The image was pulled from {registry.registry_url}.")
    say("The engine does not have the image, nor has any registry; builds it again.")
    built = make_image(algorithm, build.commit_sha, log=say, stop=stop)
    with database().writing() as session:
        session.execute(update(Build).where(Build.id == build.id).values(image_id=built.image_id))
    return StoredImage(
        built.image_id, " The image was built again, so its digest may differ from that of earlier pushes."
    )


def _good_pushes(build: Build) -> list[tuple[ImagePush, Registry]]:
    """Where this version was pushed to well, the latest first, as callers asked for it."""
    with database().reading() as session:
        rows = session.execute(
            select(ImagePush, Registry)
            .join(Registry, Registry.id == ImagePush.registry_id)
            .where(
                ImagePush.version_id == build.version_id,
                ImagePush.last_success_digest.is_not(None),
                Registry.deleted_at.is_(None),
            )
            .order_by(ImagePush.last_success_order.desc())
        )
        return [(push, registry) for push, registry in rows]


def _pulled(
    algorithm: Algorithm, push: ImagePush, registry: Registry, say: Callable[[str], None], stop: StopSignal
) -> str | None:
    def on_event(done: str) -> None:
        say(f"Pulls the image from {registry.registry_url}: {done}")

    try:
        return pull_image(
            repository_of(registry, algorithm),
            push.last_success_digest or "",
            open_own(keyring(), registry),
            on_event=on_event,
            stop=stop,
        )
    except SealError:
        return None
    except WorkError as error:
        if error.error_class == ErrorClass.UNAVAILABLE:
            raise
        return None
