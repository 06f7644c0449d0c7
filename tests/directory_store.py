"""A minimal image store in a directory, for tests of code that adds images to a store."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from workers.images.oci import Descriptor, Manifest


class DirectoryStore:
    """Blobs by digest, and names; nothing is ever removed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._blobs, self._names = directory / "blobs" / "sha256", directory / "names"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._names.mkdir(exist_ok=True)

    def hold(self, digest: str) -> int | None:
        path = self._path(digest)
        return path.stat().st_size if path.exists() else None

    @contextmanager
    def open(self, digest: str, offset: int = 0) -> Iterator[BinaryIO]:
        with self._path(digest).open("rb") as blob:
            blob.seek(offset)
            yield blob

    def add(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        hashed, partial = hashlib.sha256(), self._names.with_name(uuid.uuid4().hex)
        with partial.open("wb") as blob:
            for chunk in chunks:
                hashed.update(chunk)
                blob.write(chunk)
        actual = f"sha256:{hashed.hexdigest()}"
        assert digest in {None, actual}
        os.replace(partial, self._path(actual))
        return actual, self._path(actual).stat().st_size

    def forget(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def name(self, name: str, manifest: Descriptor) -> None:
        assert self._whole(manifest), f"{name} names what is not there"
        (self._names / quote(name, safe="")).write_text(json.dumps(manifest.document()))

    def named(self, name: str) -> Descriptor | None:
        path = self._names / quote(name, safe="")
        return Descriptor.parse(json.loads(path.read_text())) if path.exists() else None

    def _whole(self, manifest: Descriptor) -> bool:
        content = self._path(manifest.digest).read_bytes()
        return all(self.hold(blob.digest) == blob.size for blob in Manifest.parse(content).blobs)

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.partition(":")[2]
