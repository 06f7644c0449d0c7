"""Both forms in which engines save an image, written here: an engine knows only one of them."""

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ErrorClass, WorkError
from tests.directory_store import DirectoryStore
from tests.unit.workers.builds.sources import archive_of, entry
from workers.images.engine_transfer import read_saved

ONE, TWO = archive_of({"one": b"1"}), archive_of({"two": b"2"})
EMPTY = bytes(1024)


def hexadecimal(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def configuration(*layers: bytes) -> bytes:
    diff_ids = [f"sha256:{hexadecimal(layer)}" for layer in layers]
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps(document, indent=1).encode()


def manifest(config: str, *layers: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": None, "Layers": layers}]).encode()


def by_directories() -> tuple[bytes, bytes]:
    config = configuration(ONE, TWO, ONE)
    name = f"{hexadecimal(config)}.json"
    files = {
        "a/VERSION": b"1.0",
        "a/json": b"{}",
        "a/layer.tar": ONE,
        "b/layer.tar": TWO,
        name: config,
        "manifest.json": manifest(name, "a/layer.tar", "b/layer.tar", "c/layer.tar"),
    }
    again = entry("c/layer.tar", type=tarfile.SYMTYPE, linkname="../a/layer.tar")
    return archive_of(files, entries=[again]), config


def as_layout() -> tuple[bytes, bytes]:
    config = configuration(ONE, EMPTY, TWO, ONE)
    packed = gzip.compress(TWO)
    names = {f"blobs/sha256/{hexadecimal(blob)}": blob for blob in (ONE, EMPTY, packed, config, b'{"manifests": []}')}
    one, empty, two, config_path, _ = names
    files = {
        **names,
        "index.json": b"{}",
        "oci-layout": b"{}",
        "manifest.json": manifest(config_path, one, empty, two, one),
    }
    return archive_of(files), config


def refused(store: DirectoryStore, archive: bytes) -> WorkError:
    with pytest.raises(WorkError) as caught:
        read_saved(store, [archive])
    return caught.value


@pytest.mark.parametrize("form", [by_directories, as_layout])
def test_an_image_is_the_same_in_the_store(tmp_path: Path, form: Callable[[], tuple[bytes, bytes]]) -> None:
    archive, config = form()
    store = DirectoryStore(tmp_path)
    image = read_saved(store, [archive[start : start + 700] for start in range(0, len(archive), 700)])
    assert image.manifest.config.digest == f"sha256:{hexadecimal(config)}"
    assert image.manifest.layers[0] == image.manifest.layers[-1]
    diff_ids: list[Any] = image.configuration["rootfs"]["diff_ids"]
    for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=True):
        with store.open(layer.digest) as blob:
            assert f"sha256:{hexadecimal(gzip.decompress(blob.read()))}" == diff_id


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(tmp_path: Path) -> None:
    config = configuration(TWO)
    files = {"c.json": config, "a/layer.tar": ONE, "manifest.json": manifest("c.json", "a/layer.tar")}
    error = refused(DirectoryStore(tmp_path), archive_of(files))
    assert error.error_class is ErrorClass.TRANSIENT


@pytest.mark.parametrize("archive", [b"no tar" * 200, by_directories()[0][:2000], archive_of({"manifest.json": b"[]"})])
def test_what_is_no_saved_image_is_refused(tmp_path: Path, archive: bytes) -> None:
    assert "cannot be read" in refused(DirectoryStore(tmp_path), archive).message
