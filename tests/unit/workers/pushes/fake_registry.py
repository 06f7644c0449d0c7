"""A registry in memory that can imitate registries which cannot run here."""

import hashlib
import json
import re
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from dev.services.certificates import ServerCertificate
from dev.services.server_thread import serve_in_thread

_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
_UPLOADS = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/")
_UPLOAD = re.compile(r"/upload/(?P<repository>.+)/(?P<upload>[0-9a-f]{32})")
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")


@dataclass
class FakeRegistry:
    """Its content, its requests, and its options."""

    host: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    received: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    patch_status: int = 202
    """ECR responds with 201."""
    takes_chunks: bool = True
    """Google's registry refuses them."""
    max_bytes: int = 0
    """Limit of bytes per request; more is 413. 0: no limit."""
    refuses_silently: bool = False
    """It closes the connection instead of sending 413."""
    min_chunk: int = 0
    """Value of `OCI-Chunk-Min-Length`."""
    interrupts_after: list[int] = field(default_factory=list)
    """Numbers of bytes after which the next uploads are interrupted, one by one."""
    forgotten_uploads: int = 0
    """Number of uploads that it has forgotten when they are committed."""
    phantom_blobs: set[str] = field(default_factory=set)
    """Digests of blobs that HEAD reports although they do not exist."""
    media_type_prefix: str = ""
    """Prefix of the media types of manifests that it accepts."""
    mounts: bool = True
    uploads_at: str = ""
    """Another origin to which it redirects uploads."""
    heads_at: str = ""
    """Another origin to which it redirects HEAD requests for blobs."""
    silent_at: str = ""
    """A path at which it never answers."""
    commit_statuses: list[int] = field(default_factory=list)
    """Status for the next commits, although they succeed; 0 closes the connection."""
    refusals_of: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Response to every PUT, by the end of the path."""
    refusals: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Responses to the next requests, by method."""

    def requests(self, method: str) -> list[str]:
        """Return the paths that were requested with this method."""
        return [path for used, path, _headers in self.received if used == method]


@contextmanager
def fake_registry(certificate: ServerCertificate | None = None) -> Iterator[FakeRegistry]:
    """Run one on a loopback port, with plain HTTP unless it has a certificate."""
    registry = FakeRegistry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": registry}))
    server.daemon_threads = True
    registry.host = f"127.0.0.1:{server.server_port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serve_in_thread(server):
        yield registry


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        self.registry.received.append((self.command, self.path, dict(self.headers)))
        if urlsplit(self.path).path == self.registry.silent_at:
            self.connection.recv(1)  # until the client closes the connection
            self.close_connection = True
            return
        planned = self.registry.refusals.get(self.command)
        if planned:
            status, headers = planned.pop(0)
            self.close_connection = True
            self._answer(status, {**headers, "Connection": "close"})
            return
        path = urlsplit(self.path).path
        for end, refusal in self.registry.refusals_of.items():
            if self.command == "PUT" and path.endswith(end):
                self.close_connection = True
                self._answer(refusal[0], {**refusal[1], "Connection": "close"})
                return
        for pattern, answer in (
            (_UPLOAD, self._upload),
            (_UPLOADS, self._open),
            (_BLOB, self._blob),
            (_MANIFEST, self._manifest),
        ):
            if match := pattern.fullmatch(path):
                answer(**match.groupdict())
                return
        self._answer(200 if path == "/v2/" else 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any  # noqa: N815 - the library names them

    def _blob(self, repository: str, digest: str) -> None:
        content = self.registry.blobs.get((repository, digest))
        if content is None and self.command == "HEAD" and digest in self.registry.phantom_blobs:
            content = b""
        if self.command == "HEAD" and self.registry.heads_at:
            self._answer(307, {"Location": f"{self.registry.heads_at}{self.path}"})
        elif content is None:
            self._answer(404)
        else:
            self._answer(200, content=content)

    def _open(self, repository: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "mount" in query and self.registry.mounts:
            content = self.registry.blobs.get((query["from"][0], query["mount"][0]))
            if content is not None:
                self.registry.blobs[repository, query["mount"][0]] = content
                self._answer(201)
                return
        upload = uuid.uuid4().hex
        self.registry.uploads[upload] = bytearray()
        headers = {"Location": f"{self.registry.uploads_at}/upload/{repository}/{upload}?state=a%2Fb"}
        if self.registry.min_chunk:
            headers["OCI-Chunk-Min-Length"] = str(self.registry.min_chunk)
        self._answer(202, headers)

    def _upload(self, repository: str, upload: str) -> None:
        kept = self.registry.uploads.get(upload)
        if kept is None:
            self._answer(404, content=b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        elif self.command == "GET":
            self._answer(204, {"Range": f"0-{max(len(kept) - 1, 0)}", "Location": self.path})
        elif self.command == "PATCH":
            self._receive(kept)
        else:
            self._finish(repository, upload, kept)

    def _receive(self, kept: bytearray) -> None:
        length, content_range = int(self.headers["Content-Length"]), self.headers.get("Content-Range")
        refused = None
        if content_range and not self.registry.takes_chunks:
            refused = 400
        elif self.registry.max_bytes and length > self.registry.max_bytes:
            refused = 413
        elif content_range and int(content_range.partition("-")[0]) != len(kept):
            refused = 416
        if refused == 413 and self.registry.refuses_silently:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if refused:
            self.close_connection = True
            self._answer(refused, {"Connection": "close"})
            return
        if self.registry.interrupts_after:
            kept += self.rfile.read(min(self.registry.interrupts_after.pop(0), length))
            self.close_connection = True
            self.connection.shutdown(2)
            return
        kept += self.rfile.read(length)
        self._answer(self.registry.patch_status, {"Location": self.path, "Range": f"0-{len(kept) - 1}"})

    def _finish(self, repository: str, upload: str, kept: bytearray) -> None:
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        del self.registry.uploads[upload]
        if self.registry.forgotten_uploads:
            self.registry.forgotten_uploads -= 1
            self._answer(404, content=b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        elif digest != f"sha256:{hashlib.sha256(kept).hexdigest()}":
            self._answer(400, content=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        else:
            self.registry.blobs[repository, digest] = bytes(kept)
            status = self.registry.commit_statuses.pop(0) if self.registry.commit_statuses else 201
            if status:
                self._answer(status)
            else:
                self.close_connection = True
                self.connection.shutdown(2)

    def _manifest(self, repository: str, reference: str) -> None:
        if self.command == "PUT":
            self._take_manifest(repository, reference)
            return
        manifest = self.registry.manifests.get((repository, reference))
        if manifest is None:
            self._answer(404)
            return
        media_type, content = manifest
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)

    def _take_manifest(self, repository: str, reference: str) -> None:
        content, media_type = self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Type"]
        if not media_type.startswith(self.registry.media_type_prefix):
            self._answer(400, content=b'{"errors":[{"code":"MANIFEST_INVALID"}]}')
            return
        document = json.loads(content)
        for blob in (document["config"], *document["layers"]):
            if (repository, blob["digest"]) not in self.registry.blobs:
                self._answer(400, content=b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
                return
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.registry.manifests[repository, reference] = self.registry.manifests[repository, digest] = (
            media_type,
            content,
        )
        self._answer(201)

    def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @override
    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""
