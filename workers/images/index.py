"""The names of a layout: `index.json`, which any OCI tool reads (image-spec 1.1: image index, annotations)."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.errors import ErrorClass, WorkError
from workers.images.disk import replace_file
from workers.images.oci import OCI_INDEX, Descriptor, InvalidManifestError

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation under which tools look for a name."""
Entry = dict[str, Any]
"""A manifest's descriptor as it stands in the index, with its name."""


class Index:
    """What the names of a layout stand for. Readers never wait; writers do, for each other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "index.json"
        self._lock = directory / "index.lock"
        self._last: _Read | None = None

    def prepare(self) -> None:
        """Make an empty one where there is none."""
        with self._alone():
            if not self._path.exists():
                self._write({})

    def names(self) -> Mapping[str, Descriptor]:
        """Every name, and the manifest that it stands for.

        Raises:
            WorkError: there is no index, or it is damaged (unavailable).
        """
        return self._read().manifests

    def get(self, name: str) -> Descriptor | None:
        """The manifest that one name stands for."""
        read = self._read()
        return read.manifest(name) if name in read.entries else None

    def put(self, name: str, manifest: Descriptor) -> None:
        """Let a name stand for a manifest."""
        with self._alone():
            self._write({**self._read().entries, name: _entry(name, manifest)})

    def drop(self, gone: Mapping[str, Descriptor]) -> int:
        """Remove names, but none that stands for another manifest by now; gives how many went."""
        with self._alone():
            read = self._read()
            goes = {name for name, seen in gone.items() if name in read.entries and read.manifest(name) == seen}
            if goes:
                self._write({name: entry for name, entry in read.entries.items() if name not in goes})
            return len(goes)

    def _read(self) -> "_Read":
        """What the index says now: always read, as a file's times and size do not tell that it was replaced."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            raise WorkError(
                ErrorClass.UNAVAILABLE, f"{self._path} is gone: put it back, or move the directory away"
            ) from None
        last = self._last  # another thread may write it meanwhile
        if last is None or last.content != content:
            last = self._last = _parsed(content, self._path)
        return last

    def _write(self, entries: Mapping[str, Entry]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entries[name] for name in sorted(entries)],
        }
        content = json.dumps(document, separators=(",", ":")).encode()
        replace_file(self._path, content)
        self._last = _Read(self._path, content, entries)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class _Read:
    """An index that was read. To make descriptors of all entries takes much longer than to read them."""

    path: Path
    content: bytes
    entries: Mapping[str, Entry]

    @cached_property
    def manifests(self) -> Mapping[str, Descriptor]:
        return {name: self.manifest(name) for name in self.entries}

    def manifest(self, name: str) -> Descriptor:
        try:
            manifest = Descriptor.parse(self.entries[name])
        except InvalidManifestError as broken:
            raise _damaged(self.path, broken) from None
        said = {key: value for key, value in manifest.annotations.items() if key != REF_NAME}
        return replace(manifest, annotations=said)


def _parsed(content: bytes, path: Path) -> _Read:
    try:
        named = [entry for entry in json.loads(content)["manifests"] if REF_NAME in (entry.get("annotations") or {})]
        return _Read(path, content, {str(entry["annotations"][REF_NAME]): entry for entry in named})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WorkError:
    return WorkError(
        ErrorClass.UNAVAILABLE, f"{path} is no index of an image layout ({error}): move the directory away"
    )


def _entry(name: str, manifest: Descriptor) -> Entry:
    return replace(manifest, annotations={**manifest.annotations, REF_NAME: name}).document()
