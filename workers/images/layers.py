"""Layers: archives that are compressed and hashed while they flow into the image store (image-spec 1.1: layer).

What was installed in a container, out of the archive that the engine makes of it, as it stands in a layer.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from isal import isal_zlib

from shared.errors import ErrorClass, WorkError
from workers.images.archive import Entry, content_of, is_whiteout, members_of, plain_entry, streamed
from workers.images.image_store import StoreUse
from workers.images.oci import OCI_LAYER_GZIP, Descriptor

_GZIP = 31
"""zlib's `wbits` for a gzip stream with the largest window; its header then has no name and no time (RFC 1952)."""
_PIECE_BYTES = 512 * 1024


class Compressor(Protocol):
    """A gzip stream that is being made."""

    def compress(self, data: bytes, /) -> bytes:
        """What the stream has to say of the next bytes; often nothing yet."""

    def flush(self) -> bytes:
        """The end of the stream."""


@dataclass(frozen=True)
class Layer:
    """A layer in the store: the blob, and the digest of the archive before it was compressed (`diff_id`)."""

    blob: Descriptor
    diff_id: str


def fast() -> Compressor:
    """For layers of hundreds of megabytes: about 690 MB/s a core.

    ISA-L takes the fastest code that the processor has, so another machine may write other bytes: for layers that are
    compressed once and then kept in the store.
    """
    return isal_zlib.compressobj(level=1, wbits=_GZIP)


def exact() -> Compressor:
    """For small layers that are made anew on every machine and must have one digest.

    zlib does the same on every processor and takes no setting from its surroundings. It is the one that this Python was
    linked with: machines whose distribution has zlib-ng in its place make other digests than the rest.
    """
    return zlib.compressobj(level=6, wbits=_GZIP)


def add_layer(use: StoreUse, archive: Iterable[bytes], compression: Callable[[], Compressor]) -> Layer:
    """Compress an archive into the store.

    Raises:
        WorkError: as the store says; and what reading the archive raises.
    """
    compressor = compression()
    uncompressed = hashlib.sha256()

    def compressed() -> Iterator[bytes]:
        for piece in _gathered(archive):
            uncompressed.update(piece)
            yield compressor.compress(piece)
        yield compressor.flush()

    digest, size = use.add(compressed())
    return Layer(Descriptor(OCI_LAYER_GZIP, digest, size), f"sha256:{uncompressed.hexdigest()}")


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one size: what a compressor writes may depend on where it is handed the next."""
    piece = bytearray()
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_BYTES):
            piece += chunk[start : start + _PIECE_BYTES]
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece[:_PIECE_BYTES])
                del piece[:_PIECE_BYTES]
    if piece:
        yield bytes(piece)


def installed_entries(chunks: Iterable[bytes], above: str) -> Iterator[Entry]:
    """The members of an archive, below the directory `above` and in the order that they come in: that of their names.

    What a file has beside its content, owner and mode is left out (times, names, attributes): what is installed again
    is as equal as it can be.

    Raises:
        tarfile.ReadError: the archive breaks off.
        WorkError: a member has a name that would delete files of the layers below (invalid).
    """
    with streamed(chunks) as archive:
        for member in members_of(archive):
            yield _entry(archive, member, above)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, above: str) -> Entry:
    if is_whiteout(member.name):
        raise WorkError(
            ErrorClass.INVALID,
            f"a requirement installs {member.name[:200]!r}, a name that deletes files in an image (.wh.)",
        )
    entry = plain_entry(_below(above, member.name))
    entry.type, entry.mode, entry.uid, entry.gid = member.type, member.mode & 0o7777, member.uid, member.gid
    # A hard link names another member of the archive, a symbolic one whatever it likes.
    entry.linkname = _below(above, member.linkname) if member.islnk() else member.linkname
    if not member.isreg():
        return entry, ()
    entry.type, entry.size = tarfile.REGTYPE, member.size
    return entry, content_of(archive, member)


def _below(above: str, path: str) -> str:
    return f"{above}/{path}".strip("/")
