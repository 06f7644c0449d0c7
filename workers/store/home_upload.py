"""Adding a blob to the home registry while it is made: its digest and length are known at its end only."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from shared.errors import ErrorClass, WorkError
from shared.registry.answer import Response
from shared.registry.blobs import TRANSFER
from shared.registry.client import RegistryClient
from shared.registry.sending import COMMIT, min_chunk

BLOCK_BYTES = 4 * 1024 * 1024
"""What is in memory of a blob while it is added, unless the registry wants larger chunks."""


@contextmanager
def at_home() -> Iterator[None]:
    """Whatever is wrong with the platform's own registry is for its operator: the job waits and spends no try."""
    try:
        yield
    except WorkError as error:
        if error.error_class == ErrorClass.TRANSIENT:
            raise
        raise WorkError(ErrorClass.UNAVAILABLE, f"The home registry: {error.message} The job waits.") from error


def upload_chunks(
    client: RegistryClient, path: str, scope: str, chunks: Iterable[bytes], digest: str | None
) -> tuple[str, int]:
    """Upload a blob in chunks (distribution-spec 1.1: pushing a blob in chunks), and give its digest and size (bytes).

    Raises:
        WorkError: the registry does not take it (unavailable, transient), or it is not what `digest` says (transient);
            and whatever `chunks` raises.
    """
    hashed, size = hashlib.sha256(), 0
    with at_home():
        answer = client.send("POST", f"/v2/{path}/blobs/uploads/", scope=scope, body=b"")
        location = _expected(client, answer, {202}).location
    for block in _blocks(chunks, max(BLOCK_BYTES, min_chunk(answer))):
        hashed.update(block)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{size}-{size + len(block) - 1}",
        }
        with at_home():
            answer = client.send_to("PATCH", location, scope=scope, headers=headers, body=block, limits=TRANSFER)
            location = _expected(client, answer, {201, 202, 204}).location or location
        size += len(block)
    made = f"sha256:{hashed.hexdigest()}"
    if digest is not None and made != digest:
        raise WorkError(ErrorClass.TRANSIENT, f"What was to be {digest} is {made}: it was damaged on its way.")
    joint = "&" if "?" in location else "?"
    with at_home():
        address = f"{location}{joint}{urlencode({'digest': made})}"
        _expected(client, client.send_to("PUT", address, scope=scope, body=b"", limits=COMMIT), {201, 204})
    return made, size


def _expected(client: RegistryClient, answer: Response, statuses: set[int]) -> Response:
    if answer.status not in statuses:
        raise client.failure(answer, "taking a layer into the image store")
    return answer


def _blocks(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of one size (bytes), and what is left."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        while len(kept) >= size:
            yield bytes(kept[:size])
            del kept[:size]
    if kept:
        yield bytes(kept)
