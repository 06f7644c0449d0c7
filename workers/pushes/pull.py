"""Pulling an image of ours back out of a registry that it was pushed to well."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

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


@dataclass(frozen=True)
class PulledImage:
    """An image that is in the store now, and the registry that had it."""

    manifest: Manifest
    registry_url: str


def pulled_image(
    use: StoreUse,
    algorithm: Algorithm,
    build: Build,
    digest: str | None,
    say: Callable[[str], None],
    stop: CancelToken,
) -> PulledImage | None:
    """The build's image out of a registry: of one that has it with this digest, if any; None where none has it.

    Raises:
        Stopped: the stop was asked for.
        WorkError: the store does not work (unavailable); no registry gave it, but one that may have it is away
            (transient, throttled).
    """
    away: WorkError | None = None
    for pushed, registry in _good_pushes(build, digest):
        say(f"The image store does not have the image; pulls it from {registry.registry_url}.")
        path = repository_path(address_of(registry), algorithm.owner, algorithm.name)
        try:
            with client_of(registry, credential_provider(registry).for_reading(), cancel_token=stop) as client:
                manifest = _pulled(use, client, path, pushed, say)
        except InvalidManifestError:
            continue
        except WorkError as error:
            if error.error_class == ErrorClass.UNAVAILABLE:
                raise
            if error.error_class in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED):
                away = away or error
            continue
        if manifest is not None:
            return PulledImage(_as_built(use, manifest, digest), registry.registry_url)
    if away is not None:
        raise away
    return None


def _good_pushes(build: Build, digest: str | None) -> list[tuple[str, Registry]]:
    """Where this version was pushed to well, as which digest: the build's own first, then the latest."""
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
        return [(pushed, registry) for pushed, registry in rows if pushed is not None]


def _pulled(
    use: StoreUse, client: RegistryClient, path: str, digest: str, say: Callable[[str], None]
) -> Manifest | None:
    content = client.manifest(path, digest)
    if content is None:
        return None
    manifest = Manifest.parse(content)
    for blob in manifest.blobs:
        if use.hold(blob.digest) is None:
            say(f"Pulls {blob.digest} ({blob.size:,} bytes) from {client.host}.")
            use.add(_pieces(client, path, blob.digest), blob.digest)
    use.add([content], digest)
    return manifest


def _pieces(client: RegistryClient, path: str, digest: str) -> Iterator[bytes]:
    with stream_blob(client, path, digest, f"repository:{path}:pull") as read:
        while piece := read(PIECE_BYTES):
            yield piece


def _as_built(use: StoreUse, manifest: Manifest, digest: str | None) -> Manifest:
    """In the words of the build, where a registry that knows others had to be told it in its own."""
    with suppress(InvalidManifestError):
        original = manifest.to_oci()
        if digest is not None and original.descriptor.digest == digest:
            use.add([original.content], digest)
            return original
    return manifest
