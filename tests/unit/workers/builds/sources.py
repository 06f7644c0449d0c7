"""Make tars as git does of a commit's source."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any


def entry(name: str, **attributes: Any) -> tarfile.TarInfo:
    """One member without content."""
    made = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def archive_of(
    files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, entries: Iterable[tarfile.TarInfo] = ()
) -> bytes:
    """A tar with these files, these symbolic links, and these members as they are."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            tar.addfile(entry(name, size=len(content)), io.BytesIO(content))
        for name, aim in (links or {}).items():
            tar.addfile(entry(name, type=tarfile.SYMTYPE, linkname=aim))
        for member in entries:
            tar.addfile(member)
    return target.getvalue()
