"""An image in a store, whole or not at all."""

from collections.abc import Callable

from shared.errors import ErrorClass, WorkError
from workers.oci.descriptor import InvalidManifestError, digest_of
from workers.oci.manifest import Manifest
from workers.store.image_store import StoreUse

MAX_BYTES = 4 * 1024 * 1024
"""Of a manifest: what registries take (distribution-spec 1.1: pushing manifests)."""


def held_image(use: StoreUse, digest: str) -> Manifest | None:
    """The image of this manifest, held with all that it names; None where anything is missing or damaged.

    What is damaged is forgotten, so that it is made again. Of the blobs only the size is looked at.

    Raises:
        WorkError: the store does not work (unavailable), or the digest is not that of a manifest (invalid).
    """
    if use.hold(digest) is None:
        return None
    with use.open(digest) as reader:
        content = read_whole(reader.read)
    if digest_of(content) != digest:
        use.forget(digest)
        return None
    try:
        manifest = Manifest.parse(content)
    except InvalidManifestError as broken:
        raise WorkError(ErrorClass.INVALID, f"The image store has {digest}, but {broken}.") from None
    whole = True
    for blob in manifest.blobs:
        held = use.hold(blob.digest)
        if held is not None and held != blob.size:
            use.forget(blob.digest)
        whole = whole and held == blob.size
    return manifest if whole else None


def read_whole(read: Callable[[int], bytes]) -> bytes:
    """Everything that a reader gives, which may be no more than a manifest has.

    Raises:
        WorkError: it is more (invalid).
    """
    content = bytearray()
    while piece := read(64 * 1024):
        content += piece
        if len(content) > MAX_BYTES:
            raise WorkError(ErrorClass.INVALID, "The image store has a manifest of more than 4 MiB.")
    return bytes(content)
