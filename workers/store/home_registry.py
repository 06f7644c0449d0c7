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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from shared.errors import WorkError
from shared.registry.address import RegistryAddress
from shared.registry.blobs import blob_path, blob_size, reading_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.stopping import CancelToken
from workers.oci.descriptor import InvalidManifestError, Descriptor
from workers.oci.manifest import Manifest
from workers.store.held_image import held_image, read_whole
from workers.store.home_upload import at_home, upload_chunks
from workers.store.image_store import BlobReader, StoreUse

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
        with RegistryClient(self._address, self._credentials, ca_certificate=self._ca_certificate, stop=stop) as client:
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
                read = kept.enter_context(reading_blob(self._session(), self._path, digest, self._scope, offset))

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
                raise self._client.failure(answer, "naming an image")

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
                self._of_threads[me] = self._client.beside()
            return self._of_threads[me]


def _tag(name: str) -> str:
    """A tag for a name: what can be read of it, and a hash, so that no two names have one tag."""
    return f"{_NO_TAG.sub('-', name).strip('.-')[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
