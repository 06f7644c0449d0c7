"""Responses of the git service that do not come from git."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from werkzeug.wrappers import Request, Response

from api.git.concurrency import concurrency_limits
from api.git.connection import CHUNK_BYTES, ClientConnection
from shared.cancellation import call_after

DISCARD_TIMEOUT_SECONDS = 5.0
"""How long an unused body is read. A sender that is cut off does not get the response (RFC 9112, section 9.6)."""
_ERROR_BAND = b"\x03"


def rejected_push(message: str) -> Response:
    """Return a response to a push whose message git shows to its user. Of an HTTP error git shows the status only.

    The message is in the error channel of the side-band (git's pack-protocol documentation).
    """
    line = _ERROR_BAND + message.encode() + b"\n"
    body = f"{len(line) + 4:04x}".encode() + line + b"0000"
    return Response(body, mimetype="application/x-git-receive-pack-result", headers={"Cache-Control": "no-cache"})


def with_discarded_body(
    response: Iterable[bytes], request: Request, connection: ClientConnection, address: str
) -> Iterator[bytes]:
    """Yield a response, and then read for a while what the client is still sending.

    Only a few bodies per address are read, and for a limited time, because each takes a thread.
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
