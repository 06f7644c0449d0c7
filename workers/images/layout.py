"""The store on this machine's disk: an OCI image layout that any OCI tool can read (image-spec 1.1: image layout)."""

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
from workers.images.collector import Collected, Collector, stored_blobs
from workers.images.disk import Disk, finish, replace_file, write_all, written_beside
from workers.images.image_store import StoreUse, held_image
from workers.images.index import Index
from workers.images.oci import Descriptor, is_sha256
from workers.images.uses import Use, Uses

VERSION = "1.0.0"
"""Of the layout (image-spec 1.1: oci-layout file)."""
USED_SECONDS = 60
"""How exactly it is known when an image was used last: noting it at every read would write at every read."""


class LayoutStore:
    """An image store in a directory, for any number of processes of one user."""

    def __init__(self, directory: Path) -> None:
        """Open it, or make it where there is nothing.

        Raises:
            WorkError: there is something else, or the disk does not work (unavailable).
        """
        self._directory = directory
        self._disk = Disk(directory)
        self._blobs = directory / "blobs" / "sha256"
        self._index = Index(directory)
        self._uses = Uses(directory)
        with self._disk.errors():
            self._prepare()

    @contextmanager
    def use(self, _stop: CancelToken | None = None) -> Iterator[StoreUse]:
        """Begin to use it; the use ends with the block, or with the process."""
        with self._disk.errors():
            if not self._uses.are_prepared():  # the directory was moved away
                self._prepare()
            begun = self._uses.begin()
            use = begun.__enter__()
        try:
            yield _LayoutUse(self._disk, self._blobs, self._index, use)
        finally:
            begun.__exit__(None, None, None)

    def size_bytes(self) -> int:
        """What the blobs take."""
        with self._disk.errors():
            return sum(blob.size for blob in stored_blobs(self._blobs).values())

    def collection_goal(self, limit_bytes: int) -> int | None:
        """To how many bytes the blobs should be brought now; None where they may stay.

        Costs nothing where this process has neither added anything nor met a full disk since it was asked last.
        """
        return self._disk.goal_bytes(limit_bytes, self.size_bytes)

    def collect(self, limit_bytes: int, keep: Collection[str] = ()) -> Collected | None:
        """Remove what was not used for longest until the blobs take no more than the limit; None while another does.

        What somebody uses, the images with the digests in `keep`, and what was added a moment ago all stay.
        """
        with self._disk.errors():
            return Collector(self._directory, self._blobs, self._index, self._uses).collect(limit_bytes, keep)

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
        if not marker.exists():  # where there is one, an index that is missing was lost, and with it every name
            self._index.prepare()
            replace_file(marker, json.dumps({"imageLayoutVersion": VERSION}).encode())
        self._uses.prepare()


def _check_version(marker: Path) -> None:
    try:
        version = json.loads(marker.read_bytes())["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError):
        version = "none"
    if version != VERSION:
        raise WorkError(
            ErrorClass.UNAVAILABLE, f"{marker} says version {version}, not {VERSION}: choose another data directory"
        )


def _is_there(path: Path, size: int) -> bool:
    """Whether a blob is there as it should be; then it is new again for the collector, as one that was written is."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


class _LayoutUse:
    """One use of the store (a `StoreUse`)."""

    def __init__(self, disk: Disk, blobs: Path, index: Index, use: Use) -> None:
        self._disk = disk
        self._blobs = blobs
        self._index = index
        self._use = use

    def hold(self, digest: str) -> int | None:
        """Keep a blob for this use and give its size in bytes; None where there is none."""
        path = self._path(digest)
        with self._disk.errors(), self._use.noted(digest):
            try:
                found = path.stat()
            except FileNotFoundError:
                return None
            if time.time() - found.st_mtime > USED_SECONDS:
                os.utime(path)
            return found.st_size

    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BinaryIO]:
        """Read a held blob from `offset` (bytes) on."""
        with self._disk.errors():
            try:
                file = self._path(digest).open("rb", buffering=0)
            except FileNotFoundError:
                raise WorkError(ErrorClass.TRANSIENT, f"The image store has lost {digest}; it is made again.") from None
            file.seek(offset)
        with file:
            yield file

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Add a blob, and give its digest and size (bytes)."""
        hashed, size = hashlib.sha256(), 0
        with ExitStack() as written:
            with self._disk.errors():
                file, temporary = written.enter_context(written_beside(self._blobs))
            for chunk in chunks:  # what goes wrong in here is none of the disk's errors
                hashed.update(chunk)
                with self._disk.errors():
                    size += write_all(file, chunk)
            made = f"sha256:{hashed.hexdigest()}"
            if digest is not None and made != digest:
                raise WorkError(ErrorClass.TRANSIENT, f"What was to be {digest} is {made}: it was damaged on its way.")
            with self._disk.errors(), self._use.noted(made):
                if not _is_there(self._path(made), size):
                    finish(file)
                    temporary.replace(self._path(made))
                    self._disk.grown = True
        return made, size

    def forget(self, digest: str) -> None:
        """Drop a damaged blob."""
        with self._disk.errors():
            self._path(digest).unlink(missing_ok=True)

    def name(self, name: str, manifest: Descriptor) -> None:
        """Let `name` stand for a manifest."""
        with self._disk.errors():
            if self._index.get(name) != manifest:
                self._index.put(name, manifest)

    def named(self, name: str) -> Descriptor | None:
        """The manifest that a name stands for, held with everything that it names; None where anything is missing."""
        with self._disk.errors():
            manifest = self._index.get(name)
        if manifest is None or held_image(self, manifest.digest) is None:
            return None
        return manifest

    def _path(self, digest: str) -> Path:
        if not is_sha256(digest):
            raise ValueError("a blob is named by its SHA-256 digest")
        return self._blobs / digest.removeprefix("sha256:")
