"""The interface of image stores, and how to read a whole image from one."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.images.oci import Descriptor, InvalidManifestError, Manifest, digest_of

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""Limit of registries for a manifest (distribution-spec 1.1: pushing manifests)."""


class BlobReader(Protocol):
    """Reads a blob from its beginning or an offset to its end."""

    def read(self, most: int, /) -> bytes:
        """Return the next bytes, up to that many; none at the end."""


class StoreUse(Protocol):
    """One job's use of the store. What it holds, adds or finds by name stays in the store until the use ends.

    Methods may be called from several threads. Every method raises `WorkError`: unavailable if the disk or registry of
    the store does not work, transient if a blob is damaged or missing (it is forgotten; a retry makes it again).
    """

    def hold(self, digest: str) -> int | None:
        """Keep a blob for this use; return its size in bytes, or None if the store does not have it."""

    def open(self, digest: str, offset: int = 0) -> AbstractContextManager[BlobReader]:
        """Read a held blob from `offset` (bytes) on."""

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Add a blob; return its digest and size (bytes).

        It becomes visible only when it is complete. With a `digest` the content is checked against it. A blob that
        exists with another size is replaced. Errors of `chunks` are raised unchanged.
        """

    def forget(self, digest: str) -> None:
        """Remove a damaged blob, so that a retry makes it again."""

    def name(self, name: str, manifest: Descriptor) -> None:
        """Give a name to a manifest whose blobs are all in the store; the name moves from an earlier manifest."""

    def named(self, name: str) -> Descriptor | None:
        """Return the manifest with a name, held with all its blobs.

        Return None if a part is missing or damaged; what is damaged is forgotten, so that the caller makes it again.
        """


class ImageStore(Protocol):
    """A store of images."""

    def use(self, stop: CancelToken | None = None) -> AbstractContextManager[StoreUse]:
        """Begin to use the store; the use ends with the block, or with the process if it is killed.

        `stop` cancels waits for a store across the network.
        """


def held_image(use: StoreUse, digest: str) -> Manifest | None:
    """Return the image with this manifest digest, held with all its blobs; None if a part is missing or damaged.

    What is damaged is forgotten, so that it is made again. Only the size of blobs is checked.

    Raises:
        WorkError: the store does not work (unavailable), or the blob is no manifest (invalid).

    """
    if use.hold(digest) is None:
        return None
    with use.open(digest) as reader:
        content = read_manifest(reader.read)
    if digest_of(content) != digest:
        use.forget(digest)
        return None
    try:
        manifest = Manifest.parse(content)
    except InvalidManifestError as error:
        raise WorkError(ErrorClass.INVALID, f"The image store has {digest}, but {error}.") from None
    is_complete = True
    for blob in manifest.blobs:
        size = use.hold(blob.digest)
        if size is not None and size != blob.size:
            use.forget(blob.digest)
        is_complete = is_complete and size == blob.size
    return manifest if is_complete else None


def read_manifest(read: Callable[[int], bytes]) -> bytes:
    """Read to the end, but no more than a manifest may have.

    Raises:
        WorkError: the content is larger (invalid).

    """
    content = bytearray()
    while piece := read(64 * 1024):
        content += piece
        if len(content) > MAX_MANIFEST_BYTES:
            raise WorkError(ErrorClass.INVALID, "The image store has a manifest of more than 4 MiB.")
    return bytes(content)


def split_blocks(chunks: Iterable[bytes], block_bytes: int) -> Iterator[bytes]:
    """Return the same bytes in blocks of one size; only the last may be smaller."""
    block = bytearray()
    for chunk in chunks:
        for start in range(0, len(chunk), block_bytes):
            block += chunk[start : start + block_bytes]
            if len(block) >= block_bytes:
                yield bytes(block[:block_bytes])
                del block[:block_bytes]
    if block:
        yield bytes(block)
