"""The store in a registry of the platform's own (`LONGSHORE_HOME_REGISTRY`): what one worker built, all can push.

Everything is in one repository, so that a layer of all images is there once. Names become tags. What goes out to other
registries passes through memory piece by piece and touches no disk. When the registry forgets, is its operator's to
say: Longshore removes nothing from it.

Adding a blob to the home registry while it is made: its digest and length are known at its end only.
"""

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.http import Response
from shared.registry.address import RegistryAddress
from shared.registry.blobs import TRANSFER_TIMEOUTS, blob_path, blob_size, stream_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload_session import COMMIT_TIMEOUTS, min_chunk_bytes
from workers.images.image_store import BlobReader, StoreUse, held_image, read_whole
from workers.images.oci import Descriptor, InvalidManifestError, Manifest

_NO_TAG = re.compile(r"[^A-Za-z0-9_.-]+")


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
        """Begin to use it; `stop` ends what waits for it."""
        with RegistryClient(
            self._address, self._credentials, ca_certificate=self._ca_certificate, cancel_token=stop
        ) as client:
            use = _HomeUse(client, self._path)
            try:
                yield use
            finally:
                use.close()


@dataclass(frozen=True)
class _Reader:
    read: Callable[[int], bytes]


class _HomeUse:
    """One use (a `StoreUse`). A registry keeps what its manifests name, so holding is looking."""

    def __init__(self, client: RegistryClient, path: str) -> None:
        self._client = client
        self._path = path
        self._scope = f"repository:{path}:pull,push"
        self._of_threads: dict[int, RegistryClient] = {}
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._forgotten: set[str] = set()

    def hold(self, digest: str) -> int | None:
        """A blob's size in bytes; None where there is none."""
        if digest in self._forgotten:
            return None
        if digest not in self._sizes:
            with at_home():
                size = blob_size(self._session(), self._path, digest, self._scope)
                if size is None:
                    content = self._session().manifest(self._path, digest)
                    size = None if content is None else len(content)
            if size is None:
                return None
            self._sizes[digest] = size
        return self._sizes[digest]

    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BlobReader]:
        """Read a blob from `offset` (bytes) on."""
        with at_home():
            content = None
            if blob_size(self._session(), self._path, digest, self._scope) is None:
                content = self._session().manifest(self._path, digest)
        if content is not None:
            yield io.BytesIO(content[offset:])
            return
        with ExitStack() as kept:
            # What the block itself raises is its own business, so only the two ways into the registry are named.
            with at_home():
                read = kept.enter_context(stream_blob(self._session(), self._path, digest, self._scope, offset))

            def read_at_home(most: int) -> bytes:
                with at_home():
                    return read(most)

            yield _Reader(read_at_home)

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Add a blob, and give its digest and size (bytes)."""
        if digest is not None and (size := self.hold(digest)) is not None:
            return digest, size
        made, size = upload_chunks(self._session(), self._path, self._scope, chunks, digest)
        self._forgotten.discard(made)
        self._sizes[made] = size
        return made, size

    def forget(self, digest: str) -> None:
        """Have a damaged blob removed, if the registry lets us; in this use it is gone in any case."""
        self._sizes.pop(digest, None)
        self._forgotten.add(digest)
        with suppress(WorkError):
            self._session().send("DELETE", blob_path(self._path, digest), scope=f"repository:{self._path}:delete")

    def name(self, name: str, manifest: Descriptor) -> None:
        """Let `name` stand for a manifest."""
        with self.open(manifest.digest) as reader:
            content = read_whole(reader.read)
        with at_home():
            answer = self._session().put_manifest(self._path, _tag(name), content, manifest.media_type)
            if answer.status != 201:
                raise self._client.response_error(answer, "naming an image")

    def named(self, name: str) -> Descriptor | None:
        """The manifest that a name stands for, with everything that it names; None where there is none."""
        with at_home():
            content = self._session().manifest(self._path, _tag(name))
        if content is None:
            return None
        try:
            manifest = Manifest.parse(content)
        except InvalidManifestError:
            return None
        return None if held_image(self, manifest.descriptor.digest) is None else manifest.descriptor

    def close(self) -> None:
        """Close what the threads opened."""
        for session in self._of_threads.values():
            session.close()

    def _session(self) -> RegistryClient:
        """The calling thread's own session."""
        me = threading.get_ident()
        with self._lock:
            if me not in self._of_threads:
                self._of_threads[me] = self._client.clone()
            return self._of_threads[me]


def _tag(name: str) -> str:
    """A tag for a name: what can be read of it, and a hash, so that no two names have one tag."""
    return f"{_NO_TAG.sub('-', name).strip('.-')[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


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
    for block in _blocks(chunks, max(BLOCK_BYTES, min_chunk_bytes(answer))):
        hashed.update(block)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{size}-{size + len(block) - 1}",
        }
        with at_home():
            answer = client.send_to(
                "PATCH", location, scope=scope, headers=headers, body=block, timeouts=TRANSFER_TIMEOUTS
            )
            location = _expected(client, answer, {201, 202, 204}).location or location
        size += len(block)
    made = f"sha256:{hashed.hexdigest()}"
    if digest is not None and made != digest:
        raise WorkError(ErrorClass.TRANSIENT, f"What was to be {digest} is {made}: it was damaged on its way.")
    joint = "&" if "?" in location else "?"
    with at_home():
        address = f"{location}{joint}{urlencode({'digest': made})}"
        _expected(client, client.send_to("PUT", address, scope=scope, body=b"", timeouts=COMMIT_TIMEOUTS), {201, 204})
    return made, size


def _expected(client: RegistryClient, answer: Response, statuses: set[int]) -> Response:
    if answer.status not in statuses:
        raise client.response_error(answer, "taking a layer into the image store")
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
