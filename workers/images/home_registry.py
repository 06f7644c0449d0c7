"""The image store in a registry of the platform (`LONGSHORE_HOME_REGISTRY`), which all workers share.

All images are in one repository, so that a layer of several images is stored once. Names become tags. Blobs that go to
other registries pass through memory in pieces and are never on disk. Longshore deletes no images from the registry:
its operator decides what is kept.
"""

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.responses import Response
from shared.registry.address import RegistryAddress
from shared.registry.blobs import TRANSFER_TIMEOUTS, blob_path, blob_size, stream_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload_session import COMMIT_TIMEOUTS, min_chunk_bytes
from workers.images.image_store import BlobReader, StoreUse, held_image, read_manifest, split_blocks
from workers.images.oci import Descriptor, InvalidManifestError, Manifest

BLOCK_BYTES = 4 * 1024 * 1024
"""Size of upload chunks, of which one is in memory; larger if the registry requires it."""
MAX_BLOCK_BYTES = 64 * 1024 * 1024
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.-]+")


class HomeRegistry:
    """An image store in a repository of a registry."""

    def __init__(
        self, address: RegistryAddress, credentials: Credentials | None, *, ca_certificate: str | None = None
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._ca_certificate = ca_certificate
        self._path = f"{address.path}/images" if address.path else "longshore/images"

    @contextmanager
    def use(self, stop: CancelToken | None = None) -> Iterator[StoreUse]:
        with (
            RegistryClient(
                self._address, self._credentials, ca_certificate=self._ca_certificate, cancel_token=stop
            ) as client,
            closing(_HomeUse(client, self._path)) as use,
        ):
            yield use


@dataclass(frozen=True)
class _Reader:
    read: Callable[[int], bytes]


class _HomeUse:
    """One use (a `StoreUse`). The registry keeps what its manifests name, so holding a blob checks that it exists."""

    def __init__(self, client: RegistryClient, path: str) -> None:
        self._client = client
        self._path = path
        self._scope = f"repository:{path}:pull,push"
        self._thread_clients: dict[int, RegistryClient] = {}
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._forgotten: set[str] = set()

    def hold(self, digest: str) -> int | None:
        if digest in self._forgotten:
            return None
        if digest not in self._sizes:
            with home_registry_errors():
                size = blob_size(self._thread_client(), self._path, digest, self._scope)
                if size is None:
                    content = self._thread_client().manifest(self._path, digest)
                    size = None if content is None else len(content)
            if size is None:
                return None
            self._sizes[digest] = size
        return self._sizes[digest]

    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BlobReader]:
        with home_registry_errors():
            is_blob = blob_size(self._thread_client(), self._path, digest, self._scope) is not None
            content = None if is_blob else self._thread_client().manifest(self._path, digest)
        if content is not None:
            yield io.BytesIO(content[offset:])
            return
        with ExitStack() as opened:
            # Only the calls to the registry are covered: errors of the caller's block are not the home registry's.
            with home_registry_errors():
                read = opened.enter_context(stream_blob(self._thread_client(), self._path, digest, self._scope, offset))

            def read_piece(max_bytes: int) -> bytes:
                with home_registry_errors():
                    return read(max_bytes)

            yield _Reader(read_piece)

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        if digest is not None and (size := self.hold(digest)) is not None:
            return digest, size
        actual, size = upload_chunks(self._thread_client(), self._path, self._scope, chunks, digest)
        self._forgotten.discard(actual)
        self._sizes[actual] = size
        return actual, size

    def forget(self, digest: str) -> None:
        """Delete the blob if the registry allows it; for this use it is gone in any case."""
        self._sizes.pop(digest, None)
        self._forgotten.add(digest)
        with suppress(WorkError):
            self._thread_client().send("DELETE", blob_path(self._path, digest), scope=f"repository:{self._path}:delete")

    def name(self, name: str, manifest: Descriptor) -> None:
        with self.open(manifest.digest) as reader:
            content = read_manifest(reader.read)
        with home_registry_errors():
            response = self._thread_client().put_manifest(self._path, _tag(name), content, manifest.media_type)
            if response.status != 201:
                raise self._client.response_error(response, "naming an image")

    def named(self, name: str) -> Descriptor | None:
        with home_registry_errors():
            content = self._thread_client().manifest(self._path, _tag(name))
        if content is None:
            return None
        try:
            manifest = Manifest.parse(content)
        except InvalidManifestError:
            return None
        return None if held_image(self, manifest.descriptor.digest) is None else manifest.descriptor

    def close(self) -> None:
        for client in self._thread_clients.values():
            client.close()

    def _thread_client(self) -> RegistryClient:
        thread = threading.get_ident()
        with self._lock:
            if thread not in self._thread_clients:
                self._thread_clients[thread] = self._client.clone()
            return self._thread_clients[thread]


def _tag(name: str) -> str:
    """Return a tag for a name: its readable part and a hash, so that different names have different tags."""
    return f"{_NOT_IN_TAGS.sub('-', name).strip('.-')[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@contextmanager
def home_registry_errors() -> Iterator[None]:
    """Turn permanent errors into `unavailable`: the operator must fix the home registry, and the job waits."""
    try:
        yield
    except WorkError as error:
        if error.error_class == ErrorClass.TRANSIENT:
            raise
        raise WorkError(ErrorClass.UNAVAILABLE, f"The home registry: {error.message} The job waits.") from error


def upload_chunks(
    client: RegistryClient, path: str, scope: str, chunks: Iterable[bytes], digest: str | None
) -> tuple[str, int]:
    """Upload a blob whose digest and size may be unknown; return them (distribution-spec 1.1: chunked uploads).

    Raises:
        WorkError: the registry does not accept it (unavailable, transient), or the content does not have this digest
            (transient); also what `chunks` raises.

    """
    sha256, size = hashlib.sha256(), 0
    with home_registry_errors():
        response = client.send("POST", f"/v2/{path}/blobs/uploads/", scope=scope, body=b"")
        location = _check_status(client, response, {202}).location
        block_bytes = max(BLOCK_BYTES, min_chunk_bytes(response))
        if block_bytes > MAX_BLOCK_BYTES:
            raise WorkError(
                ErrorClass.INVALID,
                f"{client.host} accepts no chunks of less than {block_bytes:,} bytes, but at most {MAX_BLOCK_BYTES:,} "
                "are kept in memory: configure a smaller OCI-Chunk-Min-Length.",
            )
    for block in split_blocks(chunks, block_bytes):
        sha256.update(block)
        with home_registry_errors():
            response = client.send_to(
                "PATCH",
                location,
                scope=scope,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{size}-{size + len(block) - 1}",
                },
                body=block,
                timeouts=TRANSFER_TIMEOUTS,
            )
            location = _check_status(client, response, {201, 202, 204}).location or location
        size += len(block)
    actual = f"sha256:{sha256.hexdigest()}"
    if digest is not None and actual != digest:
        raise WorkError(ErrorClass.TRANSIENT, f"What was to be {digest} is {actual}: it was damaged on its way.")
    with home_registry_errors():
        url = f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': actual})}"
        _check_status(client, client.send_to("PUT", url, scope=scope, body=b"", timeouts=COMMIT_TIMEOUTS), {201, 204})
    return actual, size


def _check_status(client: RegistryClient, response: Response, statuses: set[int]) -> Response:
    if response.status not in statuses:
        raise client.response_error(response, "taking a layer into the image store")
    return response
