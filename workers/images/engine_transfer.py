"""Transfer images between the Docker engine and the image store, as streams: never whole in memory or on disk.

Engines save an image in one of two forms (Engine API, "Export an image"): up to Docker 24 with a directory for each
layer, since then as an OCI layout. Both have a `manifest.json` that names the configuration and the layers by path.
"""

import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkError
from workers.docker.connection import NO_SPACE, disk_is_full, engine_address, interruptible
from workers.docker.images import has_image
from workers.images.archive import Entry, archived, content_of, file_entry, members_of, plain_entry, streamed
from workers.images.image import MAX_DOCUMENT_BYTES, Image, add_image
from workers.images.image_store import StoreUse
from workers.images.layers import Layer, add_layer, fast_compressor
from workers.images.oci import OCI_LAYER_GZIP, Descriptor

_CHUNK_BYTES = 1024 * 1024
_SMALL_BYTES = 256 * 1024
"""Limit for the blobs that are sent first. An engine that has the layers below from another image does not need them:
after a change of source alone the small blobs are enough."""
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TAR_MAGIC, _TAR_MAGIC_OFFSET = b"ustar", 257


def load_image(use: StoreUse, image: Image, stop: CancelToken, deadline: Deadline | None = None) -> str:
    """Load an image into the engine unless the engine has it; return its id there (Engine API, "Import images").

    The id is the digest of the configuration. The image gets no name on the engine.

    Raises:
        WorkCancelledError, WorkError: as `interruptible` and the store; also if the engine rejects the image
            (transient) or gives it another id (unavailable).

    """
    image_id = image.manifest.config.digest
    if has_image(image_id):
        return image_id
    blobs = image.manifest.blobs
    small = [blob for blob in blobs if blob.size <= _SMALL_BYTES]
    failure = _load_blobs(use, image, small, stop, deadline)
    if failure is not None and len(small) < len(blobs):
        failure = _load_blobs(use, image, blobs, stop, deadline)
    if failure is not None:
        if NO_SPACE in failure.lower():
            raise disk_is_full(f"the Docker engine at {engine_address()}")
        raise WorkError(ErrorClass.TRANSIENT, f"the Docker engine did not take an image of the store: {failure}")
    if not has_image(image_id):
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            "the Docker engine knows images by other ids than those of their configurations: have it keep images in "
            "its own store (the feature containerd-snapshotter off in daemon.json); the job waits",
        )
    return image_id


def _load_blobs(
    use: StoreUse, image: Image, blobs: Sequence[Descriptor], stop: CancelToken, deadline: Deadline | None
) -> str | None:
    """Load the image with only these blobs in the archive; return the engine's error message, if any."""
    with interruptible(stop, deadline) as client:
        events = client.load_image(archived(_archive_entries(use, image, blobs)), quiet=True)  # type: ignore[no-untyped-call]
        return next((str(event["error"]) for event in events if "error" in event), None)


def _archive_entries(use: StoreUse, image: Image, blobs: Sequence[Descriptor]) -> Iterator[Entry]:
    for blob in blobs:
        entry = plain_entry(_path(blob))
        entry.size = blob.size
        yield entry, _content(use, blob)
    manifest = {
        "Config": _path(image.manifest.config),
        "RepoTags": None,
        "Layers": [_path(layer) for layer in image.manifest.layers],
    }
    yield file_entry("manifest.json", json.dumps([manifest]).encode())


def _path(blob: Descriptor) -> str:
    return blob.digest.partition(":")[2]


def _content(use: StoreUse, blob: Descriptor) -> Iterator[bytes]:
    with use.open(blob.digest) as reader:
        while chunk := reader.read(_CHUNK_BYTES):
            yield chunk


def save_image(use: StoreUse, image_id: str, stop: CancelToken, deadline: Deadline | None = None) -> Image:
    """Add an image of the engine to the store: its layers compressed, its configuration unchanged.

    Raises:
        WorkCancelledError, WorkError: as `interruptible` and `read_saved`.

    """
    with interruptible(stop, deadline) as client:
        return read_saved(use, client.get_image(image_id, chunk_size=_CHUNK_BYTES))


def read_saved(use: StoreUse, chunks: Iterable[bytes]) -> Image:
    """Add the image in an archive that an engine saved to the store, while the archive is read.

    Raises:
        WorkError: as the store; also if the archive has an unknown form or is truncated (transient).

    """
    saved = _SavedImage(use)
    try:
        with streamed(chunks) as archive:
            for member in members_of(archive):
                saved.take(archive, member)
    except tarfile.TarError as error:
        raise _unreadable(str(error)) from error
    return saved.image()


class _SavedImage:
    """The members of a saved image so far. The manifest comes last, so each layer is added as it passes."""

    def __init__(self, use: StoreUse) -> None:
        self._use = use
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, Layer] = {}
        self._compressed: dict[str, Descriptor] = {}
        self._links: dict[str, str] = {}

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = posixpath.normpath(member.name)
        if member.issym():
            self._links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        elif member.isreg():
            self._take_file(path, member.size, content_of(archive, member))

    def image(self) -> Image:
        try:
            entry = json.loads(self._documents["manifest.json"])[0]
            configuration = self._documents[posixpath.normpath(entry["Config"])]
            diff_ids = json.loads(configuration)["rootfs"]["diff_ids"]
            layers = [self._layer(path, diff_id) for path, diff_id in zip(entry["Layers"], diff_ids, strict=True)]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise _unreadable(f"{type(error).__name__} in its manifest") from error
        return add_image(self._use, configuration, layers)

    def _take_file(self, path: str, size: int, content: Iterator[bytes]) -> None:
        start = next(content, b"")
        whole = itertools.chain([start], content)
        if start[_TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC) or not start.strip(b"\0"):
            self._layers[path] = add_layer(self._use, whole, fast_compressor)
        elif start.startswith(_GZIP_MAGIC):
            self._compressed[path] = Descriptor(OCI_LAYER_GZIP, *self._use.add(whole))
        elif start.startswith(_ZSTD_MAGIC):
            raise WorkError(
                ErrorClass.INVALID,
                "the Docker engine saves a layer compressed with zstd, which not every registry takes; "
                "have the base image made with gzip",
            )
        elif size <= MAX_DOCUMENT_BYTES:
            self._documents[path] = b"".join(whole)

    def _layer(self, path: str, diff_id: str) -> Descriptor:
        path = posixpath.normpath(path)
        path = self._links.get(path, path)
        if path in self._compressed:
            return self._compressed[path]
        layer = self._layers[path]
        if layer.diff_id != diff_id:
            raise ValueError(path)
        return layer.blob


def _unreadable(reason: str) -> WorkError:
    return WorkError(ErrorClass.TRANSIENT, f"the Docker engine saved an image in a form that cannot be read: {reason}")
