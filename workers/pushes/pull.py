"""Pull an image back from a registry to which it was pushed."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from sqlalchemy import case, select

from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Algorithm, Build, ImagePush, Registry
from shared.errors import ErrorClass, WorkError
from shared.registries.client import address_of, client_of
from shared.registries.credentials import credential_provider
from shared.registry.blobs import stream_blob
from shared.registry.client import RegistryClient
from shared.registry.reference import repository_path
from shared.registry.upload_session import PIECE_BYTES
from workers.images.image_store import StoreUse
from workers.images.oci import InvalidManifestError, Manifest


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
        except InvalidManifestError:
            continue
        except WorkError as error:
            if error.error_class == ErrorClass.UNAVAILABLE:
                raise
            if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED):
                first_error = first_error or error
            continue
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
    content = client.manifest(path, digest)
    if content is None:
        return None
    manifest = Manifest.parse(content)
    for blob in manifest.blobs:
        if use.hold(blob.digest) is None:
            show_step(f"Pulls {blob.digest} ({blob.size:,} bytes) from {client.host}.")
            use.add(_pieces(client, path, blob.digest), blob.digest)
    use.add([content], digest)
    return manifest


def _pieces(client: RegistryClient, path: str, digest: str) -> Iterator[bytes]:
    with stream_blob(client, path, digest, f"repository:{path}:pull") as read:
        while piece := read(PIECE_BYTES):
            yield piece


def _with_media_types_of_build(use: StoreUse, manifest: Manifest, digest: str | None) -> Manifest:
    """Return the OCI variant if it has this digest: the registry may have accepted Docker's media types only."""
    with suppress(InvalidManifestError):
        original = manifest.to_oci()
        if digest is not None and original.descriptor.digest == digest:
            use.add([original.content], digest)
            return original
    return manifest
