"""Tar archives with the same bytes on every machine: one time, numeric owners, no names of users (POSIX.1-2017, pax).

They flow as they are read: an archive is an iterator of its bytes, so that none is ever whole in memory.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, Self

MOMENT = 315619200
"""The one time that every file gets, in seconds (1980-01-02, the first day that zip archives can express in all time
zones)."""
ENCODING, ERRORS = "utf-8", "surrogateescape"
"""How names are written: with tarfile's defaults they would depend on the machine's locale."""
_WHITEOUT = ".wh."
_PIECE_BYTES = 1024 * 1024
_BUFFER_BYTES = 32 * 1024
"""What tarfile reads ahead. It copies the rest of it for every header: a large buffer costs more than it saves."""

Entry = tuple[tarfile.TarInfo, Iterable[bytes]]
"""A member, and its content in pieces that add up to the member's size."""


def plain_entry(path: str, owner: int = 0) -> tarfile.TarInfo:
    """A member that tells nothing of this machine: the one time, a numeric owner, no names."""
    entry = tarfile.TarInfo(path)
    entry.mtime, entry.uid, entry.gid = MOMENT, owner, owner
    return entry


def directory_entry(path: str, owner: int = 0) -> Entry:
    """A directory that everybody may enter and read."""
    entry = plain_entry(path, owner)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry, ()


def file_entry(path: str, content: bytes, owner: int = 0) -> Entry:
    """A regular file that everybody may read."""
    entry = plain_entry(path, owner)
    entry.size = len(content)
    return entry, (content,)


def parent_entries(*paths: str) -> Iterator[Entry]:
    """The directories above these paths, each once, the topmost first, owned by root."""
    split = [path.split("/") for path in paths]
    above = {"/".join(parts[:depth]) for parts in split for depth in range(1, len(parts))}
    return (directory_entry(path) for path in sorted(above))


def archived(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of an archive of these members, in this order.

    In GNU's format: it keeps names as the bytes they are, of any length, and every engine and registry reads it.
    """
    for entry, content in entries:
        yield entry.tobuf(tarfile.GNU_FORMAT, ENCODING, ERRORS)
        yield from content
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The content of a regular file of an archive, in pieces.

    Raises:
        tarfile.ReadError: the archive ends before it.
    """
    content = archive.extractfile(member)
    while content is not None and (piece := content.read(_PIECE_BYTES)):
        yield piece


def streamed(chunks: Iterable[bytes]) -> tarfile.TarFile:
    """Read an archive as it comes; its members must be looked at in their order.

    Raises:
        tarfile.ReadError: it is none, or it breaks off, be it between two members.
    """
    return tarfile.open(
        fileobj=_Stream(chunks),
        mode="r|",
        bufsize=_BUFFER_BYTES,
        encoding=ENCODING,
        errors=ERRORS,
        tarinfo=_WholeArchive,
    )


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a streamed archive, which keeps none of them in memory."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined] # it would keep them all
        yield member


def is_whiteout(path: str) -> bool:
    """Whether a layer with this path in it would delete a file of the layers below (image-spec 1.1: whiteouts)."""
    return any(part.startswith(_WHITEOUT) for part in path.split("/"))


class _WholeArchive(tarfile.TarInfo):
    """Takes nothing but the blocks of zeros for the end: tarfile takes whatever is no header for it."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it breaks off: {error}") from error


class _Stream(io.RawIOBase, IO[bytes]):
    """An iterator of bytes, as tarfile wants to read it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = filter(None, chunks)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer only at the end."""
        parts, wanted = [], size
        while wanted > 0 and (chunk := self._rest or next(self._chunks, b"")):
            parts.append(chunk[:wanted])
            self._rest = chunk[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)
