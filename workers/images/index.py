"""The names of a layout: `index.json`, which any OCI tool reads (image-spec 1.1: image index, annotations)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.errors import ErrorClass, WorkError
from shared.file_lock import file_lock
from workers.images.disk import replace_file
from workers.images.oci import OCI_INDEX, Descriptor, InvalidManifestError

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation under which tools look for a name."""
Entry = dict[str, Any]
"""Descriptor of a manifest with its name, as JSON."""


class Index:
    """The names of a layout and their manifests. Readers never wait; writers wait for each other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "index.json"
        self._lock = directory / "index.lock"
        self._cached: _Snapshot | None = None

    def prepare(self) -> None:
        with file_lock(self._lock):
            if not self._path.exists():
                self._write({})

    def names(self) -> Mapping[str, Descriptor]:
        """Return the manifests of all names.

        Raises:
            WorkError: the index is missing or damaged (unavailable).

        """
        return self._read().manifests

    def get(self, name: str) -> Descriptor | None:
        snapshot = self._read()
        return snapshot.manifest(name) if name in snapshot.entries else None

    def put(self, name: str, manifest: Descriptor) -> None:
        entry = replace(manifest, annotations={**manifest.annotations, REF_NAME: name}).document()
        with file_lock(self._lock):
            self._write({**self._read().entries, name: entry})

    def remove(self, names: Mapping[str, Descriptor]) -> int:
        """Remove the names that still have these manifests; return how many there were."""
        with file_lock(self._lock):
            snapshot = self._read()
            removed = {
                name
                for name, manifest in names.items()
                if name in snapshot.entries and snapshot.manifest(name) == manifest
            }
            if removed:
                self._write({name: entry for name, entry in snapshot.entries.items() if name not in removed})
            return len(removed)

    def _read(self) -> "_Snapshot":
        """Read the file every time: its times and size do not show that it was replaced."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            raise WorkError(
                ErrorClass.UNAVAILABLE, f"{self._path} is gone: put it back, or move the directory away"
            ) from None
        cached = self._cached  # another thread may replace it
        if cached is None or cached.content != content:
            cached = self._cached = _parse(content, self._path)
        return cached

    def _write(self, entries: Mapping[str, Entry]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entries[name] for name in sorted(entries)],
        }
        content = json.dumps(document, separators=(",", ":")).encode()
        replace_file(self._path, content)
        self._cached = _Snapshot(self._path, content, entries)


@dataclass(frozen=True)
class _Snapshot:
    """One content of the index. Parsing all entries into descriptors takes much longer than reading the JSON."""

    path: Path
    content: bytes
    entries: Mapping[str, Entry]

    @cached_property
    def manifests(self) -> Mapping[str, Descriptor]:
        return {name: self.manifest(name) for name in self.entries}

    def manifest(self, name: str) -> Descriptor:
        try:
            manifest = Descriptor.parse(self.entries[name])
        except InvalidManifestError as error:
            raise _damaged(self.path, error) from None
        return replace(
            manifest, annotations={key: value for key, value in manifest.annotations.items() if key != REF_NAME}
        )


def _parse(content: bytes, path: Path) -> _Snapshot:
    try:
        named = [entry for entry in json.loads(content)["manifests"] if REF_NAME in (entry.get("annotations") or {})]
        return _Snapshot(path, content, {str(entry["annotations"][REF_NAME]): entry for entry in named})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WorkError:
    return WorkError(
        ErrorClass.UNAVAILABLE, f"{path} is no index of an image layout ({error}): move the directory away"
    )
