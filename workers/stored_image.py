"""Where the image of a push comes from: the store, the engine, a registry that has it, else it is built again."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from sqlalchemy import select, update

from shared.database import database
from shared.errors import ErrorClass, WorkError
from shared.models import Algorithm, Build, ImagePush, Registry
from shared.registries import address_of, client_of, open_own
from shared.registry.blobs import reading_blob
from shared.registry.client import RegistryClient
from shared.registry.reference import repository_path
from shared.registry.upload import PIECE_BYTES
from shared.sealing import SealError, keyring
from shared.stopping import StopSignal
from workers.assembly.image import read_image
from workers.building import make_image
from workers.engine.image import image_name, local_reference
from workers.engine.images import has_image, name_image
from workers.engine.loading import load_image
from workers.engine.saving import save_image
from workers.oci.descriptor import BrokenDocument
from workers.oci.manifest import Manifest
from workers.store.held_image import held_image
from workers.store.image_store import StoreUse


class ImageSearch:
    """The search for the image of a succeeded build, in whatever way is left.

    `say` is told what is being done; `before_long` is called once, before anything that takes long.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        build: Build,
        *,
        say: Callable[[str], None],
        stop: StopSignal,
        before_long: Callable[[], None],
    ) -> None:
        self._algorithm = algorithm
        self._build = build
        self._say = say
        self._stop = stop
        self._before_long = before_long
        self.remark = ""
        """What the status should say of where the image came from; begins with a space, or nothing."""

    def in_store(self, use: StoreUse) -> Manifest:
        """The image, held in the store with everything that it names.

        Raises:
            Stopped: the stop was asked for.
            WorkError: no way to the image worked.
        """
        known = self._build.manifest_digest
        manifest = held_image(use, known) if known is not None else None
        if manifest is not None:
            return manifest
        self._before_long()
        manifest = self._from_engine(use) or self._from_registries(use) or self._built_again(use)
        use.name(image_name(manifest.descriptor.digest), manifest.descriptor)
        with database().writing() as session:
            session.execute(
                update(Build)
                .where(Build.id == self._build.id)
                .values(manifest_digest=manifest.descriptor.digest, image_id=manifest.config.digest)
            )
        return manifest

    def on_engine(self, use: StoreUse) -> str:
        """The image's id on the engine.

        Raises:
            Stopped: the stop was asked for.
            WorkError: no way to the image worked.
        """
        known = self._build.image_id
        if known is not None and has_image(known):
            return known
        manifest = self.in_store(use)
        self._say("Loads the image into the engine.")
        image_id = load_image(use, read_image(use, manifest.descriptor), self._stop)
        name_image(image_id, local_reference(self._algorithm.owner, self._algorithm.name, self._build.commit_sha))
        return image_id

    def _from_engine(self, use: StoreUse) -> Manifest | None:
        """An image that an engine built, before there was a store or because the store lost it."""
        image_id = self._build.image_id
        # Workers that only push need no engine.
        with suppress(WorkError):
            if image_id is not None and has_image(image_id):
                self._say("The image store does not have the image; takes it from the engine.")
                return save_image(use, image_id, self._stop).manifest
        return None

    def _from_registries(self, use: StoreUse) -> Manifest | None:
        for push, registry in self._good_pushes():
            self._say(f"The image store does not have the image; pulls it from {registry.registry_url}.")
            manifest = self._pulled(push, registry, use)
            if manifest is not None:
                self.remark = f" The image was pulled from {registry.registry_url}."
                return manifest
        return None

    def _pulled(self, push: ImagePush, registry: Registry, use: StoreUse) -> Manifest | None:
        path = repository_path(address_of(registry), self._algorithm.owner, self._algorithm.name)
        try:
            with client_of(registry, open_own(keyring(), registry), stop=self._stop) as client:
                return pull_into(use, client, path, push.last_success_digest or "", self._say)
        except (SealError, BrokenDocument):
            return None
        except WorkError as error:
            if error.error_class == ErrorClass.UNAVAILABLE:
                raise
            return None

    def _good_pushes(self) -> list[tuple[ImagePush, Registry]]:
        """Where this version was pushed to well, the latest first, as callers asked for it."""
        with database().reading() as session:
            rows = session.execute(
                select(ImagePush, Registry)
                .join(Registry, Registry.id == ImagePush.registry_id)
                .where(
                    ImagePush.version_id == self._build.version_id,
                    ImagePush.last_success_digest.is_not(None),
                    Registry.deleted_at.is_(None),
                )
                .order_by(ImagePush.last_success_order.desc())
            )
            return [(push, registry) for push, registry in rows]

    def _built_again(self, use: StoreUse) -> Manifest:
        self._say("The image store does not have the image, nor has any registry; builds it again.")
        built = make_image(self._algorithm, self._build.commit_sha, use, log=self._say, stop=self._stop)
        before = self._build.manifest_digest
        if before != built.manifest_digest:
            self.remark = " The image was built again, so its digest may differ from that of earlier pushes."
        manifest = held_image(use, built.manifest_digest)
        if manifest is None:
            raise WorkError(ErrorClass.TRANSIENT, "The image was removed from the store as soon as it was built.")
        return manifest


def pull_into(
    use: StoreUse, client: RegistryClient, repository_path: str, digest: str, say: Callable[[str], None]
) -> Manifest | None:
    """Copy an image from a registry into the store; None where the registry does not have it.

    Raises:
        Stopped, WorkError: as the client and the store say.
        BrokenDocument: what the registry has is no image.
    """
    content = client.manifest(repository_path, digest)
    if content is None:
        return None
    manifest = Manifest.parse(content)
    for blob in manifest.blobs:
        if use.hold(blob.digest) is None:
            say(f"Pulls {blob.digest} ({blob.size:,} bytes) from {client.host}.")
            use.add(_pieces(client, repository_path, blob.digest), blob.digest)
    use.add([content], digest)
    return manifest


def _pieces(client: RegistryClient, repository_path: str, digest: str) -> Iterator[bytes]:
    with reading_blob(client, repository_path, digest, f"repository:{repository_path}:pull") as read:
        while piece := read(PIECE_BYTES):
            yield piece
