"""An engine's image into the store: read as it is saved, never whole in memory nor on disk.

Engines save in two forms (Engine API, "Export an image"): up to Docker 24 with a directory for each layer, since then
as an OCI layout; both have a `manifest.json` that names the configuration and the layers by their paths.
"""

import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.archive import content_of, members_of, streamed
from workers.builds.assembly.image import Image, add_image
from workers.builds.assembly.layers import Layer, add_layer, fast
from workers.builds.limits import Deadline
from workers.docker.connection import interruptible
from workers.images.image_store import StoreUse
from workers.images.oci import OCI_LAYER_GZIP, Descriptor

_CHUNK_BYTES = 1024 * 1024
_MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


def save_image(use: StoreUse, image_id: str, stop: CancelToken, deadline: Deadline | None = None) -> Image:
    """Bring an image of the engine into the store, its layers compressed, its configuration as it is.

    Raises:
        Stopped, WorkError: as `interruptible` and the store say; also where the engine saves it in a form that is not
            known (transient).
    """
    with interruptible(stop, deadline) as client:
        return read_saved(use, client.get_image(image_id, chunk_size=_CHUNK_BYTES))


def read_saved(use: StoreUse, chunks: Iterable[bytes]) -> Image:
    """Add the image that an engine saved to the store, as its archive comes.

    Raises:
        WorkError: as the store says; also where the archive has a form that is not known, or breaks off (transient).
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
    """What has come of it so far. The manifest comes last, so that every layer is taken as it passes."""

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
        except (ValueError, LookupError, TypeError) as error:
            raise _unreadable(f"{type(error).__name__} in its manifest") from error
        return add_image(self._use, configuration, layers)

    def _take_file(self, path: str, size: int, content: Iterator[bytes]) -> None:
        begin = next(content, b"")
        whole = itertools.chain([begin], content)
        if begin[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC) or not begin.strip(b"\0"):
            self._layers[path] = add_layer(self._use, whole, fast)
        elif begin.startswith(_GZIP_MAGIC):
            self._compressed[path] = Descriptor(OCI_LAYER_GZIP, *self._use.add(whole))
        elif begin.startswith(_ZSTD_MAGIC):
            raise WorkError(
                ErrorClass.INVALID,
                "the Docker engine saves a layer compressed with zstd, which not every registry takes; "
                "have the base image made with gzip",
            )
        elif size <= _MAX_DOCUMENT_BYTES:
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


def _unreadable(why: str) -> WorkError:
    return WorkError(ErrorClass.TRANSIENT, f"the Docker engine saved an image in a form that cannot be read: {why}")
