"""Reproducible tar archives: one modification time, numeric owners, no user names (POSIX.1-2017, pax).

An archive is an iterator of its bytes, so that it is never whole in memory.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, Self

from typing_extensions import override

MOMENT = 315619200
"""Modification time of every file, in seconds (1980-01-02, the first day that zip archives can express in all time
zones)."""
ENCODING, ERRORS = "utf-8", "surrogateescape"
"""Encoding of names; tarfile's defaults depend on the machine's locale."""
_PIECE_BYTES = 1024 * 1024
_BUFFER_BYTES = 32 * 1024
"""Read-ahead of tarfile. It copies the rest for every header, so a large buffer costs more than it saves."""

Entry = tuple[tarfile.TarInfo, Iterable[bytes]]
"""A member, and its content in pieces of its size in total."""


def plain_entry(path: str, owner: int = 0) -> tarfile.TarInfo:
    """Return a member without data of this machine: fixed time, numeric owner, no names."""
    entry = tarfile.TarInfo(path)
    entry.mtime, entry.uid, entry.gid = MOMENT, owner, owner
    return entry


def directory_entry(path: str, owner: int = 0) -> Entry:
    """Return a directory that all users may enter and read."""
    entry = plain_entry(path, owner)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry, ()


def file_entry(path: str, content: bytes, owner: int = 0) -> Entry:
    """Return a regular file that all users may read."""
    entry = plain_entry(path, owner)
    entry.size = len(content)
    return entry, (content,)


def parent_entries(*paths: str) -> Iterator[Entry]:
    """Return the directories above these paths, each once, parents first, owned by root."""
    split = [path.split("/") for path in paths]
    above = {"/".join(parts[:depth]) for parts in split for depth in range(1, len(parts))}
    return (directory_entry(path) for path in sorted(above))


def archived(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Return the bytes of an archive of these members, in this order.

    The format is GNU's: it keeps names of any length as bytes, and every engine and registry reads it.
    """
    for entry, content in entries:
        yield entry.tobuf(tarfile.GNU_FORMAT, ENCODING, ERRORS)
        yield from content
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Return the content of a regular file in an archive, in pieces.

    Raises:
        tarfile.ReadError: the archive is truncated.

    """
    content = archive.extractfile(member)
    while content is not None and (piece := content.read(_PIECE_BYTES)):
        yield piece


def streamed(chunks: Iterable[bytes]) -> tarfile.TarFile:
    """Open a stream as an archive; its members must be read in their order.

    Raises:
        tarfile.ReadError: it is no archive, or truncated, even between two members.

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
    """Return the members of a streamed archive without keeping them in memory."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined] # tarfile would keep them all
        yield member


def is_whiteout(path: str) -> bool:
    """Return whether this path in a layer deletes a file of the layers below (image-spec 1.1: whiteouts)."""
    return any(part.startswith(".wh.") for part in path.split("/"))


class _WholeArchive(tarfile.TarInfo):
    """Accept only blocks of zeros as the end of an archive; tarfile accepts anything that is no header."""

    @classmethod
    @override
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it breaks off: {error}") from error


class _Stream(io.RawIOBase, IO[bytes]):
    """A readable stream of an iterator of bytes, for tarfile."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = filter(None, chunks)
        self._rest = b""

    @override
    def read(self, size: int = -1) -> bytes:
        """Return that many bytes; fewer only at the end."""
        parts, missing = [], size
        while missing > 0 and (chunk := self._rest or next(self._chunks, b"")):
            parts.append(chunk[:missing])
            self._rest = chunk[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
