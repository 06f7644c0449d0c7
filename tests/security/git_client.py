"""A git client that does not keep to the smart HTTP protocol (git's http-protocol and pack-protocol documentation)."""

import base64
import hashlib
import http.client
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

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


def slow_push(
    url: str, path: str, key: str, *, interval: float = 5.0, length: int = 100_000, sent: bytes | None = None
) -> SlowClient:
    """A push that begins with `sent`, and whose pack arrives byte by byte."""
    begun = _begun_push() if sent is None else sent
    return SlowClient(push_head(url, path, key, headers={"Content-Length": length}) + begun, b"\0", interval)


def endless_push(url: str, path: str, key: str, *, interval: float = 5.0, sent: bytes | None = None) -> SlowClient:
    """A chunked push without an end, of one byte per chunk after `sent`."""
    begun = _begun_push() if sent is None else sent
    head = push_head(url, path, key, headers={"Transfer-Encoding": "chunked"})
    return SlowClient(head + chunk(begun), chunk(b"\0"), interval)


def slow_fetch(
    url: str, path: str, key: str, *, interval: float = 5.0, length: int = 100_000, sent: bytes = b""
) -> SlowClient:
    """A fetch that names what it wants byte by byte after `sent`."""
    head = push_head(url, path, key, service="git-upload-pack", headers={"Content-Length": length})
    return SlowClient(head + sent, b"0", interval)


def _begun_push() -> bytes:
    return ref_update("1" * 40) + pack_header(1)


def huge_packets(count: int) -> bytes:
    """Return commands of a push in pkt-lines of the largest size, without an end."""
    line = f"{ZERO_HASH} {'1' * 40} refs/heads/".encode()
    return packet(line + b"a" * (MAX_PACKET_BYTES - 4 - len(line))) * count


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112, section 7.1)."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def post(
    url: str,
    path: str,
    key: str,
    body: bytes,
    *,
    service: str = "git-receive-pack",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a whole request with this body to the repository OWNER/NAME; return the status and the response."""
    connection = http.client.HTTPConnection(*address_of(url), timeout=120)
    fields = {"Authorization": basic(key), "Content-Type": f"application/x-{service}-request", **(headers or {})}
    try:
        connection.request("POST", f"/git/{path}.git/{service}", body, fields)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def want(commit: str) -> bytes:
    """Return the request of a clone of one commit, in version 0 of the protocol."""
    return packet(f"want {commit} side-band-64k agent=git/hostile\n") + FLUSH + packet("done\n")


def pack(entries: list[bytes]) -> bytes:
    """Return a pack of these entries, with its checksum."""
    content = pack_header(len(entries)) + b"".join(entries)
    return content + hashlib.sha1(content, usedforsecurity=False).digest()


def pack_entry(kind: int, content: bytes, base: str = "") -> bytes:
    """Return an entry of a pack (gitformat-pack): a blob is 3, a delta against the object `base` is 7."""
    size = len(content)
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + bytes.fromhex(base) + zlib.compress(content, 1)


@dataclass(frozen=True)
class PackedObject:
    """An object's name, and its entry of a pack."""

    name: str
    entry: bytes


def pack_object(kind: str, content: bytes) -> PackedObject:
    """Return a commit, tree or blob with this content, whatever it is."""
    name = hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    return PackedObject(name, pack_entry({"commit": 1, "tree": 2, "blob": 3}[kind], content))


def delta_bomb(size: int) -> bytes:
    """Return a push whose pack has a blob of 1 MiB and a delta that makes `size` bytes of it, a multiple of 1 MiB."""
    base = bytes(1 << 20)
    name = pack_object("blob", base).name
    copy_all = bytes([0x80 | 0x40, len(base) >> 16])
    delta = _delta_size(len(base)) + _delta_size(size) + copy_all * (size // len(base))
    return ref_update("1" * 40) + pack([pack_entry(3, base), pack_entry(7, delta, name)])


def _delta_size(size: int) -> bytes:
    digits = bytearray()
    while size > 127:
        digits.append(128 | size & 127)
        size >>= 7
    return bytes([*digits, size])
