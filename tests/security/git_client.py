"""A git client that does not keep to the smart HTTP protocol (git's http-protocol and pack-protocol documentation)."""

import base64
import http.client
from collections.abc import Mapping

from tests.security.slow_network import SlowClient, address_of, request_head, send_and_leave

FLUSH = b"0000"
ZERO_HASH = "0" * 40
MAX_PACKET_BYTES = 65520
_CAPABILITIES = "report-status agent=git/hostile"


def packet(data: bytes | str) -> bytes:
    """Return a pkt-line: its length in four hexadecimal digits, and the data."""
    content = data.encode() if isinstance(data, str) else data
    return f"{len(content) + 4:04x}".encode() + content


def ref_update(new: str, ref: str = "refs/heads/main", old: str = ZERO_HASH) -> bytes:
    """Return the commands of a push that moves one ref; a pack must follow."""
    return packet(f"{old} {new} {ref}\0{_CAPABILITIES}\n") + FLUSH


def pack_header(objects: int) -> bytes:
    """Return the beginning of a pack that promises so many objects."""
    return b"PACK" + (2).to_bytes(4) + objects.to_bytes(4)


def push_head(
    url: str, path: str, key: str, *, service: str = "git-receive-pack", headers: Mapping[str, object]
) -> bytes:
    """Return the head of a request to the repository OWNER/NAME; `headers` have the length of its body."""
    fields = {
        "Authorization": basic(key),
        "Content-Type": f"application/x-{service}-request",
        **headers,
    }
    return request_head("POST", url, f"/git/{path}.git/{service}", headers=fields)


def basic(key: str) -> str:
    """Return the value of the header `Authorization` of a git client whose password is the key."""
    return "Basic " + base64.b64encode(f"git:{key}".encode()).decode()


def broken_push(
    url: str, path: str, key: str, *, promised: int = 100_000, sent: bytes = FLUSH, reset: bool = False
) -> None:
    """Begin a push that promises many bytes, send a few, and leave."""
    send_and_leave(url, push_head(url, path, key, headers={"Content-Length": promised}) + sent, reset=reset)


def broken_chunked_push(url: str, path: str, key: str, *, sent: bytes = FLUSH, reset: bool = False) -> None:
    """Begin a push in chunks, and leave before the last one."""
    head = push_head(url, path, key, headers={"Transfer-Encoding": "chunked"})
    send_and_leave(url, head + chunk(sent), reset=reset)


def slow_push(url: str, path: str, key: str, *, interval: float = 5.0, length: int = 100_000) -> SlowClient:
    """A push whose pack arrives byte by byte."""
    first = push_head(url, path, key, headers={"Content-Length": length}) + ref_update("1" * 40) + pack_header(1)
    return SlowClient(first, b"\0", interval)


def endless_push(url: str, path: str, key: str, *, interval: float = 5.0) -> SlowClient:
    """A chunked push without an end, of one byte per chunk."""
    head = push_head(url, path, key, headers={"Transfer-Encoding": "chunked"})
    return SlowClient(head + chunk(ref_update("1" * 40) + pack_header(1)), chunk(b"\0"), interval)


def slow_fetch(url: str, path: str, key: str, *, interval: float = 5.0, length: int = 100_000) -> SlowClient:
    """A fetch that names what it wants byte by byte."""
    head = push_head(url, path, key, service="git-upload-pack", headers={"Content-Length": length})
    return SlowClient(head, b"0", interval)


def huge_packets(count: int) -> bytes:
    """Return commands of a push in pkt-lines of the largest size, without an end."""
    line = f"{ZERO_HASH} {'1' * 40} refs/heads/".encode()
    return packet(line + b"a" * (MAX_PACKET_BYTES - 4 - len(line))) * count


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112, section 7.1)."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def post(url: str, path: str, key: str, body: bytes, *, service: str = "git-receive-pack") -> tuple[int, bytes]:
    """Send a whole request with this body to the repository OWNER/NAME; return the status and the response."""
    connection = http.client.HTTPConnection(*address_of(url), timeout=120)
    try:
        connection.request(
            "POST",
            f"/git/{path}.git/{service}",
            body,
            {"Authorization": basic(key), "Content-Type": f"application/x-{service}-request"},
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
