"""Layers are compressed and hashed as streams."""

import gzip
import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.directory_store import DirectoryStore
from workers.images.layers import Compressor, add_layer, fast_compressor, reproducible_compressor
from workers.images.oci import OCI_LAYER_GZIP

MEBIBYTE = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def content_of(store: DirectoryStore, digest: str) -> bytes:
    with store.open(digest) as blob:
        return blob.read()


@pytest.mark.parametrize("compression", [fast_compressor, reproducible_compressor])
def test_a_layer_is_known_by_both_its_digests(store: DirectoryStore, compression: Callable[[], Compressor]) -> None:
    content = os.urandom(3 * MEBIBYTE) + bytes(3 * MEBIBYTE)
    layer = add_layer(store, [content], compression)
    kept = content_of(store, layer.blob.digest)
    assert layer.blob.media_type == OCI_LAYER_GZIP
    assert layer.blob.size == len(kept)
    assert layer.blob.digest == f"sha256:{hashlib.sha256(kept).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert gzip.decompress(kept) == content


@pytest.mark.parametrize("compression", [fast_compressor, reproducible_compressor])
def test_a_layer_does_not_depend_on_how_its_bytes_come(
    store: DirectoryStore, compression: Callable[[], Compressor]
) -> None:
    content = os.urandom(MEBIBYTE) * 2 + b"end"
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    assert add_layer(store, pieces, compression) == add_layer(store, [content], compression)


def test_a_small_layer_has_these_very_bytes_on_every_machine(store: DirectoryStore) -> None:
    """The bytes are fixed here: a machine with another zlib would give images other digests."""
    layer = add_layer(store, [b"def apply(input):\n    return input\n" * 20], reproducible_compressor)
    assert layer.blob.digest == "sha256:69937ab862568e5354d27cdac407646c22f2b6b04b359f89d374d20708e50ebf"
    header = content_of(store, layer.blob.digest)[:10]
    assert header[3:8] == bytes(5), "no name and no time"


def test_memory_does_not_grow_with_a_layer(store: DirectoryStore) -> None:
    def chunks() -> Iterator[bytes]:
        piece = os.urandom(MEBIBYTE)
        for _ in range(64):
            yield piece

    tracemalloc.start()
    try:
        add_layer(store, chunks(), fast_compressor)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEBIBYTE


def test_what_breaks_off_is_no_layer(store: DirectoryStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * MEBIBYTE
        raise ConnectionError

    with pytest.raises(ConnectionError):
        add_layer(store, broken(), fast_compressor)
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []
