"""A registry whose responses are scripted, for false ones that no real registry sends.

It is the fake registry of `tests/unit/shared/registry` with rules per path. For one that behaves, but for one thing,
there are `tests/unit/workers/pushes/fake_registry.py` (in memory) and `tests/service/workers/lying_proxy.py` (before
a real one).
"""

import hashlib
import json
import re
import socketserver
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from dev.services.server_thread import serve_in_thread
from tests.unit.shared.registry.fake_registry import FakeRegistry, Reply, Request, fake_registry

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class Script:
    """Replies by method and path. The last rule that matches is used; without one the reply is 404."""

    rules: list[tuple[str, re.Pattern[str], Callable[[Request], Reply]]] = field(default_factory=list)

    def on(self, method: str, path: str, reply: Reply | Callable[[Request], Reply]) -> None:
        """Add a rule for requests of a method whose whole path matches a regular expression."""
        respond = reply if callable(reply) else lambda _request: reply
        self.rules.insert(0, (method, re.compile(path), respond))

    def __call__(self, request: Request) -> Reply:
        for method, path, respond in self.rules:
            if request.method == method and path.fullmatch(request.path):
                return respond(request)
        return json_reply(404, {"errors": [{"code": "NOT_FOUND", "message": "not in the script"}]})


@dataclass(frozen=True)
class Image:
    """The documents and the layers of an image, as a registry serves them."""

    config: bytes
    layers: tuple[bytes, ...]
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


@contextmanager
def scripted_registry() -> Iterator[tuple[FakeRegistry, Script]]:
    """Run a registry that speaks `/v2/` and otherwise does what the script says; both may be changed any time."""
    script = Script()
    script.on("GET", "/v2/", json_reply(200, {}))
    with fake_registry(script) as server:
        yield server, script


class RawServer(socketserver.ThreadingTCPServer):
    """Sends the same bytes in reply to every request, and counts those that were taken."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, reply: Callable[[], Iterable[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _RawReply)
        self.reply = reply
        self.sent_bytes = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"


class _RawReply(socketserver.StreamRequestHandler):
    server: RawServer

    @override
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        with suppress(OSError):  # the client leaves
            for piece in self.server.reply():
                self.connection.sendall(piece)
                self.server.sent_bytes += len(piece)


@contextmanager
def raw_server(reply: Callable[[], Iterable[bytes]]) -> Iterator[RawServer]:
    """Run a server whose replies need not be HTTP, nor end."""
    server = RawServer(reply)
    with serve_in_thread(server):
        yield server


def image_of(*layers: bytes, changes: Mapping[str, Any] | None = None) -> Image:
    """Return an image of these layers; `changes` replace fields of the manifest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer) for layer in layers],
        **(changes or {}),
    }
    return Image(config, layers, json.dumps(manifest).encode())


def serve_image(script: Script, repository: str, image: Image, *references: str) -> None:
    """Add rules that serve an image by its digest and by `references`. Rules that are added later take precedence."""
    served = Reply(200, image.manifest, {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": image.digest})
    for reference in (image.digest, *references):
        for method in ("GET", "HEAD"):
            script.on(method, f"/v2/{repository}/manifests/{reference}", served)
    for blob in (image.config, *image.layers):
        for method in ("GET", "HEAD"):
            script.on(method, f"/v2/{repository}/blobs/{digest_of(blob)}", Reply(200, blob))


def descriptor(media_type: str, content: bytes, *, size: int | None = None) -> dict[str, Any]:
    """Return an OCI descriptor of some bytes; `size` replaces their number."""
    return {
        "mediaType": media_type,
        "digest": digest_of(content),
        "size": len(content) if size is None else size,
    }


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def json_reply(status: int, document: object, **headers: str) -> Reply:
    """Return a reply of JSON; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **named})


def token_challenge(realm: str, *, service: str = "registry", scope: str = "") -> Reply:
    """Return the 401 that sends a client to a token server at `realm`."""
    fields = f'Bearer realm="{realm}",service="{service}"' + (f',scope="{scope}"' if scope else "")
    return json_reply(401, {"errors": [{"code": "UNAUTHORIZED"}]}, WWW_Authenticate=fields)
