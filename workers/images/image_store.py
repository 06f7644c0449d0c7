"""What an image store can do, wherever it keeps its blobs.

An image in a store, whole or not at all.

The image store of this installation, as its settings choose it.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.images.oci import Descriptor, InvalidManifestError, Manifest, digest_of


class BlobReader(Protocol):
    """A blob that is being read, from its beginning or an offset to its end."""

    def read(self, most: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""


class StoreUse(Protocol):
    """One job's use of the store. What it holds, adds or finds by name stays there until the use ends.

    Methods may be called from several threads.

    Every method raises `WorkError`: unavailable where the store's disk or registry does not work, transient where a
    blob turned out to be damaged or gone (it is forgotten then, so that a new try makes it again).
    """

    def hold(self, digest: str) -> int | None:
        """Keep a blob for this use and give its size in bytes; None where the store has none of that digest."""

    def open(self, digest: str, offset: int = 0) -> AbstractContextManager[BlobReader]:
        """Read a held blob from `offset` (bytes) on."""

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Add a blob, and give its digest and size (bytes).

        Nothing of it can be seen before all of it is there. With a `digest` the content is checked against it. A blob
        that is there with another size is replaced. What `chunks` raises comes out as it is.
        """

    def forget(self, digest: str) -> None:
        """Drop a blob that turned out to be damaged, so that the next try makes it again."""

    def name(self, name: str, manifest: Descriptor) -> None:
        """Let `name` stand for a manifest, whose blobs must all be there; what it stood for before is let go."""

    def named(self, name: str) -> Descriptor | None:
        """The manifest that a name stands for, held with everything that it names.

        None where anything is missing, or was damaged: that is forgotten, so that whoever asked makes it again.
        """


class ImageStore(Protocol):
    """A place for images."""

    def use(self, stop: CancelToken | None = None) -> AbstractContextManager[StoreUse]:
        """Begin to use it; the use ends with the block, or with the process, however that ends.

        Where the store is across a network, `stop` ends what waits for it.
        """


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
