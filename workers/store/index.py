"""The names of a layout: `index.json`, which any OCI tool reads (image-spec 1.1: image index, annotations)."""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from shared.errors import ErrorClass, WorkError
from workers.oci.descriptor import BrokenDocument, Descriptor
from workers.oci.media_types import OCI_INDEX
from workers.store.writing import replace_file

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation under which tools look for a name."""


class Index:
    """What the names of a layout stand for. Readers never wait; writers do, for each other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "index.json"
        self._lock = directory / "index.lock"
        self._read: tuple[tuple[int, int, int], Mapping[str, Descriptor]] | None = None

    def prepare(self) -> None:
        """Make an empty one where there is none."""
        self._lock.touch(mode=0o600)
        if not self._path.exists():
            self.change(lambda names: names)

    def names(self) -> Mapping[str, Descriptor]:
        """Every name, and the manifest that it stands for."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {}
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._read is None or self._read[0] != seen:
            self._read = (seen, _parsed(self._path.read_bytes(), self._path))
        return self._read[1]

    def change(self, made: Callable[[dict[str, Descriptor]], dict[str, Descriptor]]) -> None:
        """Write what `made` makes of the names; nobody else writes meanwhile."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            names = made(dict(self.names()))
            replace_file(self._path, _written(names))
        finally:
            os.close(descriptor)


def _parsed(content: bytes, path: Path) -> Mapping[str, Descriptor]:
    try:
        manifests = [Descriptor.parse(entry) for entry in json.loads(content)["manifests"]]
    except (ValueError, KeyError, TypeError, BrokenDocument) as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE, f"{path} is no index of an image layout ({error}): move the directory away"
        ) from None
    return {
        manifest.annotations[REF_NAME]: _unnamed(manifest) for manifest in manifests if REF_NAME in manifest.annotations
    }


def _unnamed(manifest: Descriptor) -> Descriptor:
    return replace(manifest, annotations={key: said for key, said in manifest.annotations.items() if key != REF_NAME})


def _written(names: Mapping[str, Descriptor]) -> bytes:
    entries = [
        replace(manifest, annotations={**manifest.annotations, REF_NAME: name}).document()
        for name, manifest in sorted(names.items())
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document, separators=(",", ":")).encode()
