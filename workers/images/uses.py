"""Who uses which blobs of a store at this moment: what a collector may not take.

A use is a file that its process holds locked; what it holds stands in it, a digest to a line, each after a line's end
of its own, so that what a full disk cut short spoils none after it. The lock ends with the
process, however that ends. The gate makes "noted, then looked for" and "read all notes, then removed" exclude each
other: whoever notes holds it shared for a moment, a collector holds it alone while it removes.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path


class Uses:
    """The uses of one store, of all processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "uses"
        self._gate = directory / "gate"

    def prepare(self) -> None:
        """Make what is needed."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._gate.touch(mode=0o600)

    def are_prepared(self) -> bool:
        """Whether that was made, and nobody has taken it away since."""
        return self._gate.exists()

    @contextmanager
    def begin(self) -> Iterator["Use"]:
        """A use for as long as the block lasts."""
        path = self._directory / uuid.uuid4().hex
        with self._passing(fcntl.LOCK_SH):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield Use(self, descriptor)
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """While the block runs no collector removes anything."""
        with self._passing(fcntl.LOCK_SH):
            yield

    def held(self) -> set[str]:
        """What is held by anybody at this moment."""
        with self.alone() as held:
            return held

    @contextmanager
    def alone(self) -> Iterator[set[str]]:
        """What is held by anybody; while the block runs nobody begins to hold more."""
        with self._passing(fcntl.LOCK_EX):
            yield {digest for path in self._directory.iterdir() for digest in _held(path)}

    @contextmanager
    def _passing(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._gate, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


class Use:
    """One use: what it notes stays until it ends."""

    def __init__(self, uses: Uses, descriptor: int) -> None:
        self._uses = uses
        self._descriptor = descriptor
        self._noted: set[str] = set()

    @contextmanager
    def noted(self, digest: str) -> Iterator[None]:
        """Note a digest; in the block it can be looked for, and what is found stays."""
        with self._uses.noting():
            if digest not in self._noted:
                note = f"\n{digest}\n".encode()
                if os.write(self._descriptor, note) < len(note):
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                self._noted.add(digest)
            yield


def _held(path: Path) -> list[str]:
    """What a use holds; one whose process is gone holds nothing and is removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []  # it ended just now
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return []
        with os.fdopen(os.dup(descriptor), "r", encoding="ascii") as file:
            return file.read().split()
    finally:
        os.close(descriptor)
