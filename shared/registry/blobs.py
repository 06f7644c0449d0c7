"""Blobs of a registry: their size and content (distribution-spec 1.1: pulling blobs)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import ErrorClass, WorkError
from shared.net.http import PIECE_BYTES, Timeouts
from shared.numbers import whole_number
from shared.registry.session import RegistrySession

TRANSFER_TIMEOUTS = Timeouts(connect=5.0, read=60.0, total=None)
"""For large bodies: the silence is limited, not the duration."""


def blob_path(repository_path: str, digest: str) -> str:
    return f"/v2/{repository_path}/blobs/{digest}"


def blob_size(session: RegistrySession, repository_path: str, digest: str, scope: str) -> int | None:
    """Return a blob's size in bytes; None if the repository does not have it.

    Raises:
        WorkError: the registry answered something else, classified.
    """
    response = session.send("HEAD", blob_path(repository_path, digest), scope=scope, follow=True)
    # The storage to which a registry redirects often supports GET only, so its error to a HEAD means nothing.
    if response.status == 404 or (response.status != 200 and not session.is_own_url(response.url)):
        return None
    if response.status != 200:
        raise session.response_error(response, f"looking for a layer in {repository_path}")
    return whole_number(response.headers.get("Content-Length")) or 0


@contextmanager
def stream_blob(
    session: RegistrySession, repository_path: str, digest: str, scope: str, offset: int = 0
) -> Iterator[Callable[[int], bytes]]:
    """Read a blob from an offset (bytes). The reader must verify the digest.

    Raises:
        WorkError: the repository does not have it (not_found), or another error of the registry.
    """
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with session.stream(
        blob_path(repository_path, digest), scope=scope, headers=headers, timeouts=TRANSFER_TIMEOUTS
    ) as (response, read):
        # Without a range a partial response (206) is no answer to the request.
        if response.status not in ({200, 206} if offset else {200}):
            raise session.response_error(response, f"reading a layer of {repository_path}")
        # A registry may return the whole content instead of the requested range (RFC 9110 section 14.2).
        to_skip = offset if response.status == 200 else 0
        while to_skip:
            skipped = read(min(to_skip, PIECE_BYTES))
            if not skipped:
                raise WorkError(ErrorClass.TRANSIENT, f"A layer of {repository_path} ended before its byte {offset}.")
            to_skip -= len(skipped)
        yield read
