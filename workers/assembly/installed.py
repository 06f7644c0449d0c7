"""What was installed in a container, out of the archive that the engine makes of it, as it stands in a layer."""

import tarfile
from collections.abc import Iterable, Iterator

from shared.errors import ErrorClass, WorkError
from workers.assembly.archive import Entry, content_of, is_whiteout, members_of, plain_entry, streamed


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
