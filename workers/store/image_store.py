"""What an image store can do, wherever it keeps its blobs."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from shared.stopping import CancelToken
from workers.oci.descriptor import Descriptor


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
