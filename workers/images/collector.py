"""Garbage collection of a layout: the least recently used images go first, and never a blob that is in use.

The GC roots are the blobs that running jobs use. Each use of the store has a file that its process holds locked, with a
digest on each line. The lock ends with the process, so the roots of a killed process are free. A second lock, the gate,
separates "add a root, then look for the blob" from "read all roots, then remove blobs": adding a root holds the gate
shared for a moment, and the collector holds it exclusively while it removes.
"""

import os
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

from shared.file_lock import file_lock, lock_file, try_file_lock, try_lock_file
from workers.images.disk import remove_abandoned_files
from workers.images.index import Index
from workers.images.oci import Descriptor, InvalidManifestError, Manifest

GRACE_SECONDS = 600
"""A blob that was added or used more recently stays: it may be about to get a name or a push."""


class GcRoots:
    """The roots of all processes that use one store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "uses"
        self._gate = directory / "gate"

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._gate.touch(mode=0o600)

    def is_prepared(self) -> bool:
        return self._gate.exists()

    @contextmanager
    def begin(self) -> Iterator["RootFile"]:
        """Open a file of roots; they end with the block."""
        path = self._directory / uuid.uuid4().hex
        with self.adding():
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            lock_file(descriptor)
        try:
            yield RootFile(self, descriptor)
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Keep the collector from removing blobs while the block runs."""
        with file_lock(self._gate, shared=True, create=False):
            yield

    def read(self) -> set[str]:
        with self.frozen() as digests:
            return digests

    @contextmanager
    def frozen(self) -> Iterator[set[str]]:
        """Give the digests of all roots; none is added while the block runs."""
        with file_lock(self._gate, create=False):
            yield {digest for path in self._directory.iterdir() for digest in _read_roots(path)}


class RootFile:
    """The roots of one use of the store."""

    def __init__(self, roots: GcRoots, descriptor: int) -> None:
        self._roots = roots
        self._descriptor = descriptor
        self._digests: set[str] = set()

    @contextmanager
    def adding(self, digest: str) -> Iterator[None]:
        """Add a root. A blob that is looked up within the block, and found, stays for this use.

        Raises:
            OSError: the disk is full.

        """
        with self._roots.adding():
            if digest not in self._digests:
                # A line end on both sides: a line that a full disk cut short does not damage the next one.
                line = f"\n{digest}\n".encode()
                if os.write(self._descriptor, line) < len(line):
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                self._digests.add(digest)
            yield


def _read_roots(path: Path) -> list[str]:
    """Return the digests in a file of roots; remove the file if its process has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []  # its use has just ended
    with os.fdopen(descriptor, "r", encoding="ascii") as file:
        if try_lock_file(file):
            path.unlink(missing_ok=True)
            return []
        return file.read().split()


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Size of a blob in bytes, and when it was last added or used, in seconds since the epoch."""

    size: int
    used_at: float


@dataclass(frozen=True)
class CollectionResult:
    """Bytes of blobs before and after a collection, and the number of names that it removed."""

    bytes_before: int
    bytes_after: int
    names_removed: int


def stored_blobs(directory: Path) -> Mapping[str, StoredBlob]:
    """Return all complete blobs by digest; other processes may add and remove some meanwhile."""
    blobs = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("."):  # blobs that are being written
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    blobs[f"sha256:{entry.name}"] = StoredBlob(status.st_size, status.st_mtime)
    return blobs


class Collector:
    """One garbage collection of a layout."""

    def __init__(self, directory: Path, blobs: Path, index: Index, roots: GcRoots) -> None:
        self._directory = directory
        self._blobs = blobs
        self._index = index
        self._roots = roots
        self._reachable: dict[str, frozenset[str]] = {}

    def collect(self, limit_bytes: int, keep: Collection[str]) -> CollectionResult | None:
        """Reduce the blobs to the limit, as far as roots, `keep` and the grace period allow.

        Return None if another process is collecting.

        Raises:
            WorkError: the index is missing or damaged, so it is unknown what has a name (unavailable).

        """
        with try_file_lock(self._directory / "collector.lock") as acquired:
            if not acquired:
                return None
            remove_abandoned_files(self._blobs)
            remove_abandoned_files(self._directory)
            blobs = stored_blobs(self._blobs)
            candidates = self._candidates(limit_bytes, blobs, self._protected(blobs, self._roots.read(), keep))
            names_removed, freed = self._remove(candidates, keep)
            before = sum(blob.size for blob in blobs.values())
            return CollectionResult(before, before - freed, names_removed)

    def _candidates(
        self, limit_bytes: int, blobs: Mapping[str, StoredBlob], protected: set[str]
    ) -> Mapping[str, Descriptor]:
        """Return the names to remove, least recently used first, until the rest is within the limit."""
        names = self._index.names()
        references = Counter(digest for manifest in names.values() for digest in self._reachable_from(manifest.digest))
        total = sum(blob.size for digest, blob in blobs.items() if digest in protected or digest in references)

        def last_use(name: str) -> tuple[float, str]:
            # All names of one manifest follow each other; a manifest that is missing comes first.
            digest = names[name].digest
            return (blobs[digest].used_at if digest in blobs else 0, digest)

        candidates = {}
        for name in sorted(names, key=last_use):
            if total <= limit_bytes:
                break
            manifest = names[name]
            if manifest.digest in protected:
                continue
            candidates[name] = manifest
            reachable = self._reachable_from(manifest.digest)
            references.subtract(reachable)
            total -= sum(
                blobs[digest].size
                for digest in reachable
                if digest in blobs and digest not in protected and not references[digest]
            )
        return candidates

    def _remove(self, candidates: Mapping[str, Descriptor], keep: Collection[str]) -> tuple[int, int]:
        """Remove the candidates and all blobs without a name; return the number of names and of freed bytes.

        A process adds a root before it names an image, and none is added meanwhile: no other blob can be in
        use. Blobs are removed first, since a full disk has no space for a new index.
        """
        with self._roots.frozen() as roots:
            blobs = stored_blobs(self._blobs)
            protected = self._protected(blobs, roots, keep)
            candidates = {name: manifest for name, manifest in candidates.items() if manifest.digest not in protected}
            kept = [manifest for name, manifest in self._index.names().items() if candidates.get(name) != manifest]
            dead = blobs.keys() - protected.union(*(self._reachable_from(manifest.digest) for manifest in kept))
            for digest in dead:
                self._path(digest).unlink(missing_ok=True)
            return self._index.remove(candidates), sum(blobs[digest].size for digest in dead)

    def _protected(self, blobs: Mapping[str, StoredBlob], roots: set[str], keep: Collection[str]) -> set[str]:
        """Return what stays whatever the limit: roots, all that `keep` reaches, and recently added or used blobs."""
        since = time.time() - GRACE_SECONDS
        recent = {digest for digest, blob in blobs.items() if blob.used_at > since}
        return recent.union(roots, *(self._reachable_from(manifest) for manifest in keep))

    def _reachable_from(self, manifest: str) -> frozenset[str]:
        """Return the digests of a manifest and its blobs. One manifest can have many names; it is read once."""
        if manifest not in self._reachable:
            try:
                parsed = Manifest.parse(self._path(manifest).read_bytes())
            except (FileNotFoundError, InvalidManifestError):
                return frozenset((manifest,))  # not cached: it may be made again meanwhile
            self._reachable[manifest] = frozenset((manifest, *(blob.digest for blob in parsed.blobs)))
        return self._reachable[manifest]

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")
