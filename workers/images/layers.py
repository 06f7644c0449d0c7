"""Layers: archives that are compressed and hashed while they are added to the image store (image-spec 1.1: layer)."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from isal import isal_zlib

from shared.errors import ErrorClass, WorkError
from workers.images.archive import Entry, content_of, is_whiteout, members_of, plain_entry, streamed
from workers.images.image_store import StoreUse, split_blocks
from workers.images.oci import OCI_LAYER_GZIP, Descriptor

_GZIP = 31
"""zlib's `wbits` for a gzip stream with the largest window; its header then has no name and no time (RFC 1952)."""
_PIECE_BYTES = 512 * 1024


class Compressor(Protocol):
    """Writes a gzip stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress the next bytes; return what the stream has for them, which is often nothing yet."""

    def flush(self) -> bytes:
        """Return the end of the stream."""


@dataclass(frozen=True)
class Layer:
    """A layer in the store: the blob, and the digest of the archive before it was compressed (`diff_id`)."""

    blob: Descriptor
    diff_id: str


def fast_compressor() -> Compressor:
    """Return a compressor for layers of hundreds of megabytes: about 690 MB/s a core.

    ISA-L uses the fastest instructions of the processor, so another machine may write other bytes: use it for layers
    that are compressed once and then kept in the store.
    """
    return isal_zlib.compressobj(level=1, wbits=_GZIP)


def reproducible_compressor() -> Compressor:
    """Return a compressor for small layers, which every machine makes again and which must have one digest.

    zlib writes the same bytes on every processor. It is the library that this Python is linked with: machines whose
    distribution has zlib-ng instead make other digests.
    """
    return zlib.compressobj(level=6, wbits=_GZIP)


def add_layer(use: StoreUse, archive: Iterable[bytes], compression: Callable[[], Compressor]) -> Layer:
    """Add an archive to the store, compressed.

    Raises:
        WorkError: as the store; also what reading the archive raises.

    """
    compressor = compression()
    uncompressed = hashlib.sha256()

    def compressed() -> Iterator[bytes]:
        # The output of a compressor may depend on how its input is split.
        for piece in split_blocks(archive, _PIECE_BYTES):
            uncompressed.update(piece)
            yield compressor.compress(piece)
        yield compressor.flush()

    digest, size = use.add(compressed())
    return Layer(Descriptor(OCI_LAYER_GZIP, digest, size), f"sha256:{uncompressed.hexdigest()}")


def installed_entries(chunks: Iterable[bytes], above: str) -> Iterator[Entry]:
    """Return the members of the engine's archive of installed files, below the directory `above`, in the same order.

    Only content, owner and mode of files are kept (no times, names, attributes), so that two installations of the same
    are as equal as possible.

    Raises:
        tarfile.ReadError: the archive is truncated.
        WorkError: the name of a member would delete files of the layers below (invalid).

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
    # The target of a hard link is a member of the archive; that of a symbolic link can be any path.
    entry.linkname = _below(above, member.linkname) if member.islnk() else member.linkname
    if not member.isreg():
        return entry, ()
    entry.type, entry.size = tarfile.REGTYPE, member.size
    return entry, content_of(archive, member)


def _below(above: str, path: str) -> str:
    return f"{above}/{path}".strip("/")
