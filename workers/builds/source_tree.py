"""Read the source of an algorithm from the tar that git made of a commit, and check all of it before any use."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shared.errors import ErrorClass, WorkError
from workers.images.archive import (
    ENCODING,
    ERRORS,
    Entry,
    content_of,
    directory_entry,
    is_whiteout,
    plain_entry,
)


class SourceTree:
    """The files, directories and symbolic links of a source. Links are never followed."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        """Check the whole archive.

        Raises:
            WorkError: it has a member outside its directory, or of another type (invalid).
        """
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            path = _checked_path(member)
            if not path:
                continue
            if path in self._members:
                raise _member_error(member, "is in it twice")
            self._members[path] = member
        for path, member in self._members.items():
            for parent in _parents(path):
                if parent in self._members and not self._members[parent].isdir():
                    raise _member_error(member, f"is below {parent!r}, which is not a directory")

    def is_file(self, path: str) -> bool:
        return path in self._members and self._members[path].isreg()

    def is_directory(self, path: str) -> bool:
        """Return whether the path is a directory; a tar need not have an entry for one."""
        member = self._members.get(path)
        return member.isdir() if member else any(other.startswith(f"{path}/") for other in self._members)

    def exists(self, path: str) -> bool:
        return path in self._members or self.is_directory(path)

    def names_in(self, directory: str) -> list[str]:
        """Return the sorted names directly in a directory (`""` is the top)."""
        start = f"{directory}/" if directory else ""
        return sorted({path[len(start) :].split("/")[0] for path in self._members if path.startswith(start)})

    def size(self, path: str) -> int:
        """Return the size of a regular file, in bytes."""
        return self._members[path].size

    def read(self, path: str) -> bytes:
        content = self._archive.extractfile(self._members[path])
        return content.read() if content else b""

    def entries(self, under: str, owner: int = 0) -> Iterator[Entry]:
        """Yield all members sorted, below the directory `under` (`""` for none), with one time and owner."""
        paths = {"", *self._members, *(parent for below in self._members for parent in _parents(below))}
        for path in sorted(paths if under else paths - {""}):
            yield self._entry(path, f"{under}/{path}".strip("/"), owner)

    def _entry(self, path: str, name: str, owner: int) -> Entry:
        member = self._members.get(path)
        if member is None or member.isdir():
            return directory_entry(name, owner)
        entry = plain_entry(name, owner)
        if member.issym():
            entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, member.linkname
            return entry, ()
        entry.size, entry.mode = member.size, 0o755 if member.mode & 0o100 else 0o644
        return entry, content_of(self._archive, member)


@contextmanager
def open_source_tree(source: Path | BinaryIO) -> Iterator[SourceTree]:
    """Open the tar of a source (plain, not compressed; a file object must be seekable).

    Raises:
        WorkError: it is not a tar, or has a member that is not allowed (invalid).
    """
    try:
        archive = (
            tarfile.open(source, "r:", encoding=ENCODING, errors=ERRORS)  # noqa: SIM115 - closed below
            if isinstance(source, Path)
            else tarfile.open(fileobj=source, mode="r:", encoding=ENCODING, errors=ERRORS)  # noqa: SIM115 - closed below
        )
        with archive:
            yield SourceTree(archive)
    except tarfile.TarError as error:
        raise WorkError(ErrorClass.INVALID, f"the source is not a readable tar archive: {error}") from error


def _checked_path(member: tarfile.TarInfo) -> str:
    path = member.name.removeprefix("./").rstrip("/")
    if path in {"", "."}:
        return ""
    if path.startswith("/") or any(part in {"", ".", ".."} for part in path.split("/")):
        raise _member_error(member, "is outside the source's directory")
    if is_whiteout(path):
        raise _member_error(member, "has a name that deletes files in an image (.wh.): rename it")
    if not ((member.isreg() and not member.issparse()) or member.isdir() or member.issym()):
        raise _member_error(member, "is neither a regular file nor a directory nor a symbolic link")
    return path


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _member_error(member: tarfile.TarInfo, cause: str) -> WorkError:
    return WorkError(ErrorClass.INVALID, f"the source cannot be built: {member.name[:200]!r} {cause}")
