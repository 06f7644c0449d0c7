"""Making room in a layout: what was not used for longest goes first, and nothing that anybody needs.

What is in a layout's directory of blobs at a moment.
"""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workers.images.disk import remove_left_overs
from workers.images.index import Index
from workers.images.oci import Descriptor, InvalidManifestError, Manifest
from workers.images.uses import Uses

GRACE_SECONDS = 600
"""What was added or used so short a time ago stays: somebody is about to name it, or to ask for a push of it."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob's size in bytes, and when it was added or used last, in seconds since the epoch."""

    size: int
    used: float


def stored_blobs(directory: Path) -> Mapping[str, StoredBlob]:
    """Every blob that is whole, by its digest; others may add and remove some meanwhile."""
    found = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("."):  # as those that are being written
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    found[f"sha256:{entry.name}"] = StoredBlob(status.st_size, status.st_mtime)
    return found


@dataclass(frozen=True)
class Collected:
    """What a collection did, in bytes of blobs and numbers of names."""

    bytes_before: int
    bytes_after: int
    names_removed: int


class Collector:
    """One collection of a layout."""

    def __init__(self, directory: Path, blobs: Path, index: Index, uses: Uses) -> None:
        self._directory = directory
        self._blobs = blobs
        self._index = index
        self._uses = uses
        self._reached: dict[str, frozenset[str]] = {}

    def collect(self, limit_bytes: int, keep: Collection[str]) -> Collected | None:
        """Bring the blobs down to the limit, as far as what is needed allows; None while somebody else collects.

        Raises:
            WorkError: there is no index, or it is damaged, so that nobody knows what has a name (unavailable).
        """
        with self._only_collector() as is_only:
            if not is_only:
                return None
            remove_left_overs(self._blobs)
            remove_left_overs(self._directory)
            return self._collected(limit_bytes, keep)

    def _collected(self, limit_bytes: int, keep: Collection[str]) -> Collected:
        found = stored_blobs(self._blobs)
        going = self._going(limit_bytes, found, self._needed(found, self._uses.held(), keep))
        names_removed, freed = self._removed(going, keep)
        before = sum(blob.size for blob in found.values())
        return Collected(before, before - freed, names_removed)

    def _going(self, limit_bytes: int, found: Mapping[str, StoredBlob], needed: set[str]) -> Mapping[str, Descriptor]:
        """The names to let go, those that were not used for longest first, until the rest is within the limit."""
        names = self._index.names()
        named = Counter(digest for manifest in names.values() for digest in self._reached_by(manifest.digest))
        total = sum(blob.size for digest, blob in found.items() if digest in needed or digest in named)
        going = {}
        for name in sorted(names, key=lambda name: _turn(found, names[name])):
            if total <= limit_bytes:
                break
            manifest = names[name]
            if manifest.digest in needed:
                continue
            going[name] = manifest
            reached = self._reached_by(manifest.digest)
            named.subtract(reached)
            total -= sum(
                found[digest].size
                for digest in reached
                if digest in found and digest not in needed and not named[digest]
            )
        return going

    def _removed(self, going: Mapping[str, Descriptor], keep: Collection[str]) -> tuple[int, int]:
        """Remove what goes and what has no name, and give the number of names and the bytes that this freed.

        Nobody begins to hold anything meanwhile, and whoever names an image holds it: so what is held now and what has
        a name now is all that can be needed. The blobs go first, as a full disk has no room for another index before.
        """
        with self._uses.alone() as held:
            found = stored_blobs(self._blobs)
            needed = self._needed(found, held, keep)
            going = {name: manifest for name, manifest in going.items() if manifest.digest not in needed}
            staying = [manifest for name, manifest in self._index.names().items() if going.get(name) != manifest]
            alive = needed.union(*(self._reached_by(manifest.digest) for manifest in staying))
            dead = found.keys() - alive
            for digest in dead:
                self._path(digest).unlink(missing_ok=True)
            return self._index.drop(going), sum(found[digest].size for digest in dead)

    def _needed(self, found: Mapping[str, StoredBlob], held: set[str], keep: Collection[str]) -> set[str]:
        """What stays whatever the limit: held, awaited, or added or used a moment ago."""
        since = time.time() - GRACE_SECONDS
        young = {digest for digest, blob in found.items() if blob.used > since}
        return young.union(held, *(self._reached_by(manifest) for manifest in keep))

    def _reached_by(self, manifest: str) -> frozenset[str]:
        """The manifest and everything that it names. Many names stand for one manifest: it is read once."""
        if manifest not in self._reached:
            try:
                parsed = Manifest.parse(self._path(manifest).read_bytes())
            except (FileNotFoundError, InvalidManifestError):
                return frozenset((manifest,))  # it may be made again meanwhile
            self._reached[manifest] = frozenset((manifest, *(blob.digest for blob in parsed.blobs)))
        return self._reached[manifest]

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    @contextmanager
    def _only_collector(self) -> Iterator[bool]:
        descriptor = os.open(self._directory / "collector.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)


def _turn(found: Mapping[str, StoredBlob], manifest: Descriptor) -> tuple[float, str]:
    """When it is the turn of a manifest's names, all one after the other; what is not there any more goes first."""
    return (found[manifest.digest].used if manifest.digest in found else 0, manifest.digest)
