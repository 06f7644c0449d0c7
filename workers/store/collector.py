"""Making room in a layout: what was not used for longest goes first, and nothing that anybody needs."""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.oci.descriptor import BrokenDocument
from workers.oci.manifest import Manifest
from workers.store.index import Index
from workers.store.uses import Uses
from workers.store.writing import remove_left_overs

YOUNG_SECONDS = 600
"""What was added or used so short a time ago stays: somebody is about to name it, or to ask for a push of it."""


@dataclass(frozen=True)
class Collected:
    """What a collection did, in bytes of blobs and numbers of names."""

    bytes_before: int
    bytes_after: int
    names_removed: int


class Collector:
    """Collects one layout."""

    def __init__(self, directory: Path, blobs: Path, index: Index, uses: Uses) -> None:
        self._directory = directory
        self._blobs = blobs
        self._index = index
        self._uses = uses

    def collect(self, limit_bytes: int, keep: Collection[str]) -> Collected | None:
        """Bring the blobs down to the limit, as far as what is needed allows; None while somebody else collects."""
        with self._only_collector() as is_only:
            if not is_only:
                return None
            remove_left_overs(self._blobs)
            remove_left_overs(self._directory)
            return self._collected(limit_bytes, set(keep))

    def _collected(self, limit_bytes: int, keep: set[str]) -> Collected:
        sizes, used = self._stored()
        names = self._index.names()
        reached = {name: self._reached_by(manifest.digest) for name, manifest in names.items()}
        needed = _young(used).union(*(self._reached_by(manifest) for manifest in keep))
        named = Counter(digest for digests in reached.values() for digest in digests)
        before = sum(sizes.values())
        dead = sizes.keys() - needed - named.keys()
        total = before - sum(sizes[digest] for digest in dead)
        gone: set[str] = set()
        for name in sorted(names, key=lambda name: used.get(names[name].digest, 0)):
            if total <= limit_bytes:
                break
            if names[name].digest in needed:
                continue
            gone.add(name)
            named.subtract(reached[name])
            for digest in reached[name]:
                if not named[digest] and digest in sizes and digest not in needed:
                    dead.add(digest)
                    total -= sizes[digest]
        if gone:
            self._index.change(lambda present: {name: at for name, at in present.items() if name not in gone})
        return Collected(before, before - self._removed(dead, sizes), len(gone))

    def _removed(self, dead: Set[str], sizes: Mapping[str, int]) -> int:
        """Remove what still nobody uses, and give the bytes that this freed."""
        freed = 0
        with self._uses.alone() as held:
            _, used = self._stored()
            for digest in dead - held - _young(used):
                self._path(digest).unlink(missing_ok=True)
                freed += sizes[digest]
        return freed

    def _stored(self) -> tuple[dict[str, int], dict[str, float]]:
        """Sizes, and when each was used last, by digest."""
        sizes, used = {}, {}
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found = entry.stat()
                    sizes[f"sha256:{entry.name}"], used[f"sha256:{entry.name}"] = found.st_size, found.st_mtime
        return sizes, used

    def _reached_by(self, manifest: str) -> frozenset[str]:
        """The manifest and everything that it names."""
        try:
            parsed = Manifest.parse(self._path(manifest).read_bytes())
        except (FileNotFoundError, BrokenDocument):
            return frozenset((manifest,))
        return frozenset((manifest, *(blob.digest for blob in parsed.blobs)))

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


def _young(used: dict[str, float]) -> set[str]:
    since = time.time() - YOUNG_SECONDS
    return {digest for digest, moment in used.items() if moment > since}
