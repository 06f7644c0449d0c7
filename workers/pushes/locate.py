"""Locate the image of a push: in the store, in a registry (it is pulled then), on the engine; or build it again."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from sqlalchemy import case, exists, select, update

from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Algorithm, Build, ImagePush, Job, Registry
from shared.errors import ErrorClass, WorkError
from shared.fence import HELD, Claim, held_by
from shared.file_lock import poll_file_lock
from shared.net.http import PIECE_BYTES
from shared.registries.access import address_of, client_of
from shared.registries.credentials import credential_provider
from shared.registry.blobs import stream_blob
from shared.registry.client import RegistryClient
from shared.registry.reference import repository_path
from shared.settings import settings
from workers.builds.build import make_image
from workers.docker.images import has_image, local_reference, name_image
from workers.images.engine_transfer import load_image, save_image
from workers.images.image import image_name, read_image
from workers.images.image_store import StoreUse, held_image
from workers.images.oci import Descriptor, InvalidManifestError, Manifest, digest_of


def pull_from_registry(
    use: StoreUse,
    algorithm: Algorithm,
    build: Build,
    digest: str | None,
    show_step: Callable[[str], None],
    stop: CancelToken,
) -> tuple[Manifest, str] | None:
    """Pull the image of a build, preferably with this digest; return it and the URL of its registry, if any has it.

    Raises:
        WorkCancelledError: the push was cancelled.
        WorkError: the store does not work (unavailable); or no registry has the image, but one that may have it failed
            (transient, throttled).

    """
    first_error: WorkError | None = None
    for pushed_digest, registry in _successful_pushes(build, digest):
        show_step(f"The image store does not have the image; pulls it from {registry.registry_url}.")
        path = repository_path(address_of(registry), algorithm.owner, algorithm.name)
        try:
            with client_of(registry, credential_provider(registry).for_reading(), cancel_token=stop) as client:
                manifest = _pull(use, client, path, pushed_digest, show_step)
        except InvalidManifestError as error:
            show_step(f"The image cannot be pulled from {registry.registry_url}: {error}.")
        except WorkError as error:
            if error.error_class == ErrorClass.UNAVAILABLE:
                raise
            if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED):
                first_error = first_error or error
        else:
            if manifest is not None:
                return _with_media_types_of_build(use, manifest, digest), registry.registry_url
    if first_error is not None:
        raise first_error
    return None


def _successful_pushes(build: Build, digest: str | None) -> list[tuple[str, Registry]]:
    """Return the digests and registries of successful pushes of this version: this digest first, then the latest."""
    with database().reading() as session:
        rows = session.execute(
            select(ImagePush.last_success_digest, Registry)
            .join(Registry, Registry.id == ImagePush.registry_id)
            .where(
                ImagePush.version_id == build.version_id,
                ImagePush.last_success_digest.is_not(None),
                Registry.deleted_at.is_(None),
            )
            .order_by(case((ImagePush.last_success_digest == digest, 0), else_=1), ImagePush.last_success_seq.desc())
        )
        return [(pushed_digest, registry) for pushed_digest, registry in rows if pushed_digest is not None]


def _pull(
    use: StoreUse, client: RegistryClient, path: str, digest: str, show_step: Callable[[str], None]
) -> Manifest | None:
    """Pull an image. Nothing that the registry sends is used before it is verified by `digest`.

    Raises:
        InvalidManifestError: the registry has other content under the digest, or the image cannot be pulled.
        WorkError: the registry or the store failed.
    """
    content = client.manifest(path, digest)
    if content is None:
        return None
    # Before anything that the manifest names is requested.
    if digest_of(content) != digest:
        raise InvalidManifestError(f"{client.host} answered a request for {digest} with other content")
    manifest = Manifest.parse(content)
    if sum(blob.size for blob in manifest.blobs) > settings().store_max_bytes:
        raise InvalidManifestError("the image is larger than the image store may be (LONGSHORE_STORE_MAX_BYTES)")
    for blob in manifest.blobs:
        if use.hold(blob.digest) is None:
            show_step(f"Pulls {blob.digest} ({blob.size:,} bytes) from {client.host}.")
            use.add(_pieces(client, path, blob), blob.digest)
    use.add([content], digest)
    return manifest


def _pieces(client: RegistryClient, path: str, blob: Descriptor) -> Iterator[bytes]:
    """Yield a blob's content, never more than its size.

    Raises:
        WorkError: the registry has more or fewer bytes (transient), or failed.
    """
    left = blob.size
    with stream_blob(client, path, blob.digest, f"repository:{path}:pull") as read:
        while piece := read(min(PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left != 0:
        raise WorkError(
            ErrorClass.TRANSIENT,
            f"{client.host} answered with {'more' if left < 0 else 'fewer'} than the {blob.size:,} bytes of "
            f"{blob.digest}.",
        )


def _with_media_types_of_build(use: StoreUse, manifest: Manifest, digest: str | None) -> Manifest:
    """Return the OCI variant if it has this digest: the registry may have accepted Docker's media types only."""
    with suppress(InvalidManifestError):
        original = manifest.to_oci()
        if digest is not None and original.descriptor.digest == digest:
            use.add([original.content], digest)
            return original
    return manifest


class ImageSearch:
    """The search for the image of a succeeded build.

    Sources that keep the digest come first: a registry has the same bytes, an engine compresses them again, and another
    build may differ. `show_step` is called with a message for each step; `before_slow_steps` once, before the first
    slow one.
    """

    def __init__(
        self,
        claim: Claim,
        algorithm: Algorithm,
        build: Build,
        *,
        show_step: Callable[[str], None],
        stop: CancelToken,
        before_slow_steps: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._algorithm = algorithm
        self._build = build
        self._known_digest = build.manifest_digest
        self._show_step = show_step
        self._stop = stop
        self._before_slow_steps = before_slow_steps
        self.remark = ""
        """Addition to the status message about the source of the image; begins with a space, or is empty."""

    def in_store(self, use: StoreUse) -> Manifest:
        """Return the image, held in the store with all its blobs.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: no source has the image.

        """
        manifest = self._held(use)
        if manifest is not None:
            return manifest
        self._before_slow_steps()
        # Concurrent pushes of one lost image locate it once: two builds of it might differ.
        with poll_file_lock(
            [settings().data_dir.absolute() / "locks" / f"{self._build.id}.lock"],
            self._stop.check,
            on_wait=lambda: self._show_step("Another push is looking for the same image: waiting for it."),
        ):
            with database().reading() as session:
                self._known_digest = session.scalar(select(Build.manifest_digest).where(Build.id == self._build.id))
            manifest = self._held(use)
            if manifest is None:
                manifest = self._locate(use)
                self._record(use, manifest)
        return manifest

    def on_engine(self, use: StoreUse) -> str:
        """Return the id of the image on the engine.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: no source has the image.

        """
        if self._build.image_id is not None and has_image(self._build.image_id):
            return self._build.image_id
        manifest = self.in_store(use)
        self._show_step("Loads the image into the engine.")
        image_id = load_image(use, read_image(use, manifest.descriptor), self._stop)
        name_image(image_id, local_reference(self._algorithm.owner, self._algorithm.name, self._build.commit_sha))
        return image_id

    def _held(self, use: StoreUse) -> Manifest | None:
        return held_image(use, self._known_digest) if self._known_digest is not None else None

    def _locate(self, use: StoreUse) -> Manifest:
        try:
            pulled = pull_from_registry(
                use, self._algorithm, self._build, self._known_digest, self._show_step, self._stop
            )
        except WorkError:
            # The registry that failed may have the image; another build might give a different one.
            saved = self._from_engine(use)
            if saved is None:
                raise
            return saved
        if pulled is not None:
            manifest, registry_url = pulled
            self.remark = f" The image was pulled from {registry_url}."
            return manifest
        return self._from_engine(use) or self._rebuild(use)

    def _record(self, use: StoreUse, manifest: Manifest) -> None:
        """Write the digest to the build's row, unless another push has changed it or this claim is over."""
        digest = manifest.descriptor.digest
        use.name(image_name(digest), manifest.descriptor)
        if self._known_digest not in (None, digest):
            self.remark += " Its digest differs from that of earlier pushes."
        with database().writing() as session:
            session.execute(
                update(Build)
                .where(
                    Build.id == self._build.id,
                    Build.manifest_digest.is_not_distinct_from(self._known_digest),
                    exists(select(Job.id).where(HELD)),
                )
                .values(manifest_digest=digest, image_id=manifest.config.digest)
                .execution_options(synchronize_session=False),
                held_by(self._claim),
            )

    def _from_engine(self, use: StoreUse) -> Manifest | None:
        """Save the image from the engine, which may have it from its own build."""
        # Workers that only push need no engine.
        with suppress(WorkError):
            if self._build.image_id is not None and has_image(self._build.image_id):
                self._show_step("The image store does not have the image; takes it from the engine.")
                return save_image(use, self._build.image_id, self._stop).manifest
        return None

    def _rebuild(self, use: StoreUse) -> Manifest:
        self._show_step("The image store does not have the image, nor has any registry; builds it again.")
        built = make_image(
            self._algorithm,
            self._build.commit_sha,
            use,
            log=self._show_step,
            stop=self._stop,
            made_with=self._build.environment_key,
        )
        self.remark = " The image was built again."
        manifest = held_image(use, built.manifest_digest)
        if manifest is None:
            raise WorkError(ErrorClass.TRANSIENT, "The image was removed from the store as soon as it was built.")
        return manifest
