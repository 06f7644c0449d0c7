"""What is in a layout's directory of blobs at a moment."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


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
