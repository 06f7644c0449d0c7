"""The image store on this machine's disk: an OCI image layout for any OCI tool (image-spec 1.1: image layout)."""

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.images.collector import CollectionResult, Collector, GcRoots, RootFile, stored_blobs
from workers.images.disk import Disk, replace_file, temporary_file, write_all
from workers.images.image_store import StoreUse, held_image
from workers.images.index import Index
from workers.images.oci import Descriptor, is_sha256

VERSION = "1.0.0"
"""Version of the layout (image-spec 1.1: oci-layout file)."""
USED_AT_PRECISION_SECONDS = 60
"""How exact the last use of a blob is: recording it on every read would make every read a write."""


class LayoutStore:
    """An image store in a directory, for any number of processes of one user."""

    def __init__(self, directory: Path) -> None:
        """Open the layout, or create it in a new directory.

        Raises:
            WorkError: the directory has other files, or the disk does not work (unavailable).

        """
        self._directory = directory
        self._disk = Disk(directory)
        self._blobs = directory / "blobs" / "sha256"
        self._index = Index(directory)
        self._roots = GcRoots(directory)
        with self._disk.errors():
            self._prepare()

    @contextmanager
    def use(self, _stop: CancelToken | None = None) -> Iterator[StoreUse]:
        with ExitStack() as begun:
            with self._disk.errors():
                if not self._roots.is_prepared():  # the directory was moved away
                    self._prepare()
                roots = begun.enter_context(self._roots.begin())
            yield _LayoutUse(self._disk, self._blobs, self._index, roots)

    def size_bytes(self) -> int:
        with self._disk.errors():
            return sum(blob.size for blob in stored_blobs(self._blobs).values())

    def collection_target(self, limit_bytes: int) -> int | None:
        """Return the number of bytes to which the blobs should be reduced now; None if nothing needs to be removed.

        Costs nothing if this process has neither added a blob nor met a full disk since the last call.
        """
        return self._disk.target_bytes(limit_bytes, self.size_bytes)

    def collect(self, limit_bytes: int, keep: Collection[str] = ()) -> CollectionResult | None:
        """Remove the least recently used images until the blobs are within the limit.

        Blobs in use, images with the digests in `keep`, and what was added recently stay. Return None if another
        process is collecting.
        """
        with self._disk.errors():
            return Collector(self._directory, self._blobs, self._index, self._roots).collect(limit_bytes, keep)

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = self._directory / "oci-layout"
        if marker.exists():
            _check_version(marker)
        elif any(self._directory.iterdir()) and not self._blobs.parent.exists():
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"{self._directory} has files in it and is no image layout: choose another data directory",
            )
        self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not marker.exists():  # with the marker, a missing index was lost together with all names
            self._index.prepare()
            replace_file(marker, json.dumps({"imageLayoutVersion": VERSION}).encode())
        self._roots.prepare()


def _check_version(marker: Path) -> None:
    try:
        version = json.loads(marker.read_bytes())["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError):
        version = "none"
    if version != VERSION:
        raise WorkError(
            ErrorClass.UNAVAILABLE, f"{marker} says version {version}, not {VERSION}: choose another data directory"
        )


class _LayoutUse:
    """One use of a layout (a `StoreUse`)."""

    def __init__(self, disk: Disk, blobs: Path, index: Index, roots: RootFile) -> None:
        self._disk = disk
        self._blobs = blobs
        self._index = index
        self._roots = roots

    def hold(self, digest: str) -> int | None:
        path = self._path(digest)
        with self._disk.errors(), self._roots.adding(digest):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            if time.time() - status.st_mtime > USED_AT_PRECISION_SECONDS:
                os.utime(path)
            return status.st_size

    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BinaryIO]:
        with self._disk.errors():
            try:
                file = self._path(digest).open("rb", buffering=0)
            except FileNotFoundError:
                raise WorkError(ErrorClass.TRANSIENT, f"The image store has lost {digest}; it is made again.") from None
            file.seek(offset)
        with file:
            yield file

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        sha256, size = hashlib.sha256(), 0
        with ExitStack() as written:
            with self._disk.errors():
                file, temporary = written.enter_context(temporary_file(self._blobs))
            for chunk in chunks:  # outside of `errors()`: what the source raises is no error of the disk
                sha256.update(chunk)
                with self._disk.errors():
                    size += write_all(file, chunk)
            actual = f"sha256:{sha256.hexdigest()}"
            if digest is not None and actual != digest:
                raise WorkError(
                    ErrorClass.TRANSIENT, f"What was to be {digest} is {actual}: it was damaged on its way."
                )
            with self._disk.errors(), self._roots.adding(actual):
                if not _has_size(self._path(actual), size):
                    os.fsync(file.fileno())
                    temporary.replace(self._path(actual))
                    self._disk.has_grown = True
        return actual, size

    def forget(self, digest: str) -> None:
        with self._disk.errors():
            self._path(digest).unlink(missing_ok=True)

    def name(self, name: str, manifest: Descriptor) -> None:
        with self._disk.errors():
            if self._index.get(name) != manifest:
                self._index.put(name, manifest)

    def named(self, name: str) -> Descriptor | None:
        with self._disk.errors():
            manifest = self._index.get(name)
        return None if manifest is None or held_image(self, manifest.digest) is None else manifest

    def _path(self, digest: str) -> Path:
        if not is_sha256(digest):
            raise ValueError("a blob is named by its SHA-256 digest")
        return self._blobs / digest.removeprefix("sha256:")


def _has_size(path: Path, size: int) -> bool:
    """Return whether the blob is there with this size; it then counts as just added for the collector."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
