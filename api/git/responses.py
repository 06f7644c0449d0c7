"""Responses of the git service that are not git's own."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from werkzeug.wrappers import Request, Response

from api.git.concurrency import concurrency_limits
from api.git.connection import CHUNK_BYTES, ClientConnection
from shared.cancellation import call_after

DISCARD_TIMEOUT_SECONDS = 5.0
"""How long a body is read that nobody wants. A sender that is cut off does not see the response (RFC 9112, 9.6)."""
_ERROR_BAND = b"\x03"


def rejected_push(message: str) -> Response:
    """Return the response to a push in which git shows its user a sentence; it shows none of a status from 300.

    The error channel of the side-band (git's pack-protocol documentation).
    """
    line = _ERROR_BAND + message.encode() + b"\n"
    body = f"{len(line) + 4:04x}".encode() + line + b"0000"
    return Response(body, mimetype="application/x-git-receive-pack-result", headers={"Cache-Control": "no-cache"})


def with_discarded_body(
    response: Iterable[bytes], request: Request, connection: ClientConnection, address: str
) -> Iterator[bytes]:
    """Yield a response, and then read for a while what the client is still sending.

    At most a few bodies per address are read, and a client that goes on is cut off: it must not keep a thread.
    """
    try:
        yield from response
    finally:
        getattr(response, "close", lambda: None)()
    if not request.content_length and "Transfer-Encoding" not in request.headers:
        return
    with concurrency_limits().discard(address) as is_allowed:
        if not is_allowed or not _read_to_end(request, connection):
            connection.stop_reading()


def _read_to_end(request: Request, connection: ClientConnection) -> bool:
    with suppress(Exception), call_after(DISCARD_TIMEOUT_SECONDS, connection.stop_reading):
        while request.environ["wsgi.input"].read(CHUNK_BYTES):
            pass
        return True
    return False
