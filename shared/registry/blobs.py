"""Blobs of a registry: is one there, and what is in it (distribution-spec 1.1: pulling blobs)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import ErrorClass, WorkError
from shared.net.http import Timeouts
from shared.registry.session import RegistrySession

TRANSFER = Timeouts(connect=5.0, read=60.0, whole=None)
"""Of something large: bounded by silence, not by how long it takes."""
SKIP_BYTES = 1024 * 1024


def blob_path(repository_path: str, digest: str) -> str:
    """Where a blob is below a registry's origin."""
    return f"/v2/{repository_path}/blobs/{digest}"


def blob_size(session: RegistrySession, repository_path: str, digest: str, scope: str) -> int | None:
    """A blob's size in bytes, or None where the repository does not have it.

    Raises:
        WorkError: the registry answered something else, classified.
    """
    answer = session.send("HEAD", blob_path(repository_path, digest), scope=scope, follow=True)
    # The storage that a registry redirects to often takes GET alone: what it says of HEAD is nothing.
    if answer.status == 404 or (answer.status != 200 and not session.is_own(answer.url)):
        return None
    if answer.status != 200:
        raise session.failure(answer, f"looking for a layer in {repository_path}")
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else 0


@contextmanager
def reading_blob(
    session: RegistrySession, repository_path: str, digest: str, scope: str, offset: int = 0
) -> Iterator[Callable[[int], bytes]]:
    """Read a blob from an offset (bytes) on; whether it is what its digest says, is for the reader to check.

    Raises:
        WorkError: the repository does not have it (not_found), or as the registry answered.
    """
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    path = blob_path(repository_path, digest)
    with session.reading(path, scope=scope, headers=headers, limits=TRANSFER) as (answer, read):
        if answer.status not in {200, 206}:
            raise session.failure(answer, f"reading a layer of {repository_path}")
        if answer.status == 200:
            _skip(read, offset)
        yield read


def _skip(read: Callable[[int], bytes], offset: int) -> None:
    """A registry may give the whole where a part was asked for (RFC 9110 section 14.2)."""
    while offset:
        skipped = read(min(offset, SKIP_BYTES))
        if not skipped:
            raise WorkError(ErrorClass.TRANSIENT, "A layer ended before the place from which it was to be read.")
        offset -= len(skipped)
