"""The store in a registry of the platform's own (`LONGSHORE_HOME_REGISTRY`): what one worker built, all can push.

Everything is in one repository, so that a layer of all images is there once. Names become tags. What goes out to other
registries passes through memory piece by piece and touches no disk. When the registry forgets, is its operator's to
say: Longshore removes nothing from it.
"""

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from shared.errors import ErrorClass, WorkError
from shared.registry.address import RegistryAddress
from shared.registry.answer import Answer
from shared.registry.blobs import TRANSFER, blob_size, reading_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload import COMMIT
from workers.oci.descriptor import BrokenDocument, Descriptor
from workers.oci.manifest import Manifest
from workers.store.image_store import BlobReader, StoreUse

BLOCK_BYTES = 4 * 1024 * 1024
"""What is in memory of a blob while it is added: its digest and length are known at its end only."""
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
    def use(self) -> Iterator[StoreUse]:
        """Begin to use it."""
        with RegistryClient(self._address, self._credentials, ca_certificate=self._ca_certificate) as client:
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

    def hold(self, digest: str) -> int | None:
        """A blob's size in bytes; None where there is none."""
        if digest not in self._sizes:
            with _at_home():
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
        with _at_home():
            content = None
            if blob_size(self._session(), self._path, digest, self._scope) is None:
                content = self._session().manifest(self._path, digest)
        if content is not None:
            yield io.BytesIO(content[offset:])
            return
        with _at_home(), reading_blob(self._session(), self._path, digest, self._scope, offset) as read:
            yield _Reader(read)

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Add a blob, and give its digest and size (bytes)."""
        if digest is not None and (size := self.hold(digest)) is not None:
            return digest, size
        with _at_home():
            made, size = self._uploaded(chunks, digest)
        self._sizes[made] = size
        return made, size

    def forget(self, digest: str) -> None:
        """Look again for a blob that turned out to be damaged."""
        self._sizes.pop(digest, None)

    def name(self, name: str, manifest: Descriptor) -> None:
        """Let `name` stand for a manifest."""
        with self.open(manifest.digest) as reader:
            content = b"".join(iter(lambda: reader.read(64 * 1024), b""))
        with _at_home():
            answer = self._session().put_manifest(self._path, _tag(name), content, manifest.media_type)
            self._expect(answer, {201}, "naming an image")

    def named(self, name: str) -> Descriptor | None:
        """The manifest that a name stands for, with everything that it names; None where there is none."""
        with _at_home():
            content = self._session().manifest(self._path, _tag(name))
        if content is None:
            return None
        try:
            manifest = Manifest.parse(content)
        except BrokenDocument:
            return None
        self._sizes[manifest.descriptor.digest] = len(content)
        return manifest.descriptor

    def close(self) -> None:
        """Close what the threads opened."""
        for session in self._of_threads.values():
            session.close()

    def _session(self) -> RegistryClient:
        """The calling thread's own session."""
        with self._lock:
            return self._of_threads.setdefault(threading.get_ident(), self._client.beside())

    def _uploaded(self, chunks: Iterable[bytes], digest: str | None) -> tuple[str, int]:
        session, hashed, size = self._session(), hashlib.sha256(), 0
        answer = session.send("POST", f"/v2/{self._path}/blobs/uploads/", scope=self._scope, body=b"")
        location = self._expect(answer, {202}, "opening an upload").location
        for block in _blocks(chunks):
            hashed.update(block)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{size}-{size + len(block) - 1}",
            }
            answer = session.send_to("PATCH", location, scope=self._scope, headers=headers, body=block, limits=TRANSFER)
            location = self._expect(answer, {201, 202, 204}, "uploading a layer").location or location
            size += len(block)
        made = f"sha256:{hashed.hexdigest()}"
        if digest is not None and made != digest:
            raise WorkError(ErrorClass.TRANSIENT, f"What was to be {digest} is {made}: it was damaged on its way.")
        joint = "&" if "?" in location else "?"
        address = f"{location}{joint}{urlencode({'digest': made})}"
        answer = session.send_to("PUT", address, scope=self._scope, body=b"", limits=COMMIT)
        self._expect(answer, {201, 204}, "finishing an upload")
        return made, size

    def _expect(self, answer: Answer, statuses: set[int], doing: str) -> Answer:
        if answer.status not in statuses:
            raise self._client.failure(answer, doing)
        return answer


def _tag(name: str) -> str:
    """A tag for a name: what can be read of it, and a hash, so that no two names have one tag."""
    return f"{_NO_TAG.sub('-', name).strip('.-')[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of one size, and what is left."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        while len(kept) >= BLOCK_BYTES:
            yield bytes(kept[:BLOCK_BYTES])
            del kept[:BLOCK_BYTES]
    if kept:
        yield bytes(kept)


@contextmanager
def _at_home() -> Iterator[None]:
    """Whatever is wrong with the platform's own registry is for its operator: the job waits and spends no try."""
    try:
        yield
    except WorkError as error:
        if error.error_class == ErrorClass.TRANSIENT:
            raise
        raise WorkError(ErrorClass.UNAVAILABLE, f"The home registry: {error.message} The job waits.") from error
