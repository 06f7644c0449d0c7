"""GC roots of a store: the blobs that running jobs use, which the collector must not remove.

Each use of the store has a file that its process holds locked, with a digest on each line. The lock ends with the
process, so the roots of a killed process are free. A second lock, the gate, separates "add a root, then look for the
blob" from "read all roots, then remove blobs": who adds a root holds the gate shared for a moment, and the collector
holds it exclusively while it removes.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

from shared.file_lock import file_lock, lock_file, try_lock_file


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
        """Return the digests of all roots at this moment."""
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
