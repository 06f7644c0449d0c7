"""The source of an algorithm, as the tar that git made of a commit: looked through before any of it is used."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shared.errors import ErrorClass, WorkError

MOMENT = 315619200
"""The one time that every file gets (1980-01-02, the first day that zip archives can express in all time zones)."""


class SourceTree:
    """The files, directories and symbolic links of a source. Links are never followed here, only handed on as links."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        """Look through the whole archive.

        Raises:
            WorkError: it has a member that could reach beyond its own directory, or is none of the three (invalid).
        """
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            path = _checked_path(member)
            if not path:
                continue
            if path in self._members:
                raise _refused(member, "stands in it twice")
            self._members[path] = member
        for path, member in self._members.items():
            self._check_parents(path, member)

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file of that path."""
        return path in self._members and self._members[path].isreg()

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that path, or anything below it."""
        if path in self._members:
            return self._members[path].isdir()
        return any(other.startswith(f"{path}/") for other in self._members)

    def exists(self, path: str) -> bool:
        """Whether there is anything of that path."""
        return path in self._members or self.is_directory(path)

    def names_in(self, directory: str) -> list[str]:
        """Names of what stands directly in the directory (`""` is the top), sorted."""
        start = f"{directory}/" if directory else ""
        return sorted({path[len(start) :].split("/")[0] for path in self._members if path.startswith(start)})

    def size(self, path: str) -> int:
        """Size of a regular file, in bytes."""
        return self._members[path].size

    def read(self, path: str) -> bytes:
        """The content of a regular file."""
        content = self._archive.extractfile(self._members[path])
        return content.read() if content else b""

    def write_to(self, target: tarfile.TarFile, under: str, owner: int = 0) -> None:
        """Add everything to `target` below the directory `under`, in one order, with one time and one numeric owner."""
        for path in sorted({"", *self._members, *(parent for below in self._members for parent in _parents(below))}):
            member = self._members.get(path)
            entry = plain_entry(f"{under}/{path}".rstrip("/"), owner)
            if member is None or member.isdir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                target.addfile(entry)
            elif member.issym():
                entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, member.linkname
                target.addfile(entry)
            else:
                entry.size, entry.mode = member.size, 0o755 if member.mode & 0o100 else 0o644
                target.addfile(entry, self._archive.extractfile(member))

    def _check_parents(self, path: str, member: tarfile.TarInfo) -> None:
        for parent in _parents(path):
            if parent in self._members and not self._members[parent].isdir():
                raise _refused(member, f"stands below {parent!r}, which is no directory")


@contextmanager
def open_source(source: Path | BinaryIO) -> Iterator[SourceTree]:
    """Open the tar of a source (plain, not compressed; a file object must be seekable).

    Raises:
        WorkError: it is no tar, or has members that are refused (invalid).
    """
    try:
        archive = (
            tarfile.open(source, "r:")  # noqa: SIM115 - closed below
            if isinstance(source, Path)
            else tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115 - closed below
        )
        with archive:
            yield SourceTree(archive)
    except tarfile.TarError as error:
        raise WorkError(ErrorClass.INVALID, f"the source is no readable tar archive: {error}") from error


def plain_entry(path: str, owner: int = 0) -> tarfile.TarInfo:
    """A tar entry that tells nothing of this machine: the one time, a numeric owner, no names."""
    entry = tarfile.TarInfo(path)
    entry.mtime, entry.uid, entry.gid = MOMENT, owner, owner
    return entry


def add_directory(target: tarfile.TarFile, path: str, owner: int = 0) -> None:
    """Add an empty directory."""
    entry = plain_entry(path, owner)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    target.addfile(entry)


def add_file(target: tarfile.TarFile, path: str, content: bytes, owner: int = 0) -> None:
    """Add a regular file that everybody may read."""
    entry = plain_entry(path, owner)
    entry.size = len(content)
    target.addfile(entry, io.BytesIO(content))


def new_archive(target: BinaryIO) -> tarfile.TarFile:
    """A tar to write to. The GNU format keeps file names as the bytes they are, and the engine reads it."""
    return tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT)


def _checked_path(member: tarfile.TarInfo) -> str:
    path = member.name.removeprefix("./").rstrip("/")
    if path in {"", "."}:
        return ""
    if path.startswith("/") or any(part in {"", ".", ".."} for part in path.split("/")):
        raise _refused(member, "reaches beyond the source's own directory")
    if not ((member.isreg() and not member.issparse()) or member.isdir() or member.issym()):
        raise _refused(member, "is neither a regular file nor a directory nor a symbolic link")
    return path


def _parents(path: str) -> Iterator[str]:
    """The directories above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _refused(member: tarfile.TarInfo, why: str) -> WorkError:
    return WorkError(ErrorClass.INVALID, f"the source cannot be built: {member.name[:200]!r} {why}")
