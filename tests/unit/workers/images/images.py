"""Images for tests of the store, of random bytes: two images share a blob only if a test gives both the same."""

import os

from workers.images.image_store import StoreUse
from workers.images.oci import OCI_CONFIG, OCI_LAYER_GZIP, Descriptor, Manifest


def add_image(use: StoreUse, name: str | None = None, *layers: bytes) -> Manifest:
    """Add an image with these layers, or a random one of a kilobyte, under a name."""
    contents = layers or (os.urandom(1024),)
    manifest = Manifest(
        _added(use, b'{"n": "' + os.urandom(8).hex().encode() + b'"}', OCI_CONFIG),
        tuple(_added(use, layer, OCI_LAYER_GZIP) for layer in contents),
    )
    use.add([manifest.content])
    if name is not None:
        use.name(name, manifest.descriptor)
    return manifest


def _added(use: StoreUse, content: bytes, media_type: str) -> Descriptor:
    digest, size = use.add([content])
    return Descriptor(media_type, digest, size)
