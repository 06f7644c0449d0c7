"""After a build the image store is brought back to its size; what pushes wait for stays."""

import os
import time
from pathlib import Path

import pytest

from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import OTHER_HASH, build_commit, change, fresh, make_registry, push
from tests.unit.workers.store.images import add_image
from workers.collecting import collect_if_full
from workers.oci.manifest import Manifest
from workers.store.chosen import image_store
from workers.store.collector import YOUNG_SECONDS
from workers.store.held_image import held_image

pytestmark = pytest.mark.usefixtures("sqlite_installation")

IMAGE_BYTES = 48 * 1024 * 1024
"""The least size of a store is 64 MiB."""


@pytest.fixture(autouse=True)
def limit(sqlite_installation, monkeypatch) -> None:
    """Room for one image and a half."""
    monkeypatch.setenv("LONGSHORE_STORE_MAX_BYTES", str(IMAGE_BYTES * 3 // 2))
    settings.cache_clear()


def old_image(name: str, *, days: int) -> Manifest:
    """An image that was used last so many days ago."""
    with image_store().use() as use:
        manifest = add_image(use, name, os.urandom(IMAGE_BYTES))
    used = time.time() - YOUNG_SECONDS - days * 86_400
    for digest in (manifest.descriptor.digest, *(blob.digest for blob in manifest.blobs)):
        os.utime(_blob(digest), (used, used))
    return manifest


def _blob(digest: str) -> Path:
    return settings().store_dir / "blobs" / "sha256" / digest.removeprefix("sha256:")


def is_there(manifest: Manifest) -> bool:
    with image_store().use() as use:
        return held_image(use, manifest.descriptor.digest) is not None


def test_what_was_not_used_for_longest_goes():
    older, newer = old_image("a:1", days=2), old_image("a:2", days=1)
    collect_if_full()
    assert (is_there(older), is_there(newer)) == (False, True)


def test_within_its_size_the_store_is_left_alone():
    only = old_image("a:1", days=30)
    collect_if_full()
    assert is_there(only)


def test_what_a_push_waits_for_stays_whatever_its_age():
    awaited, other = old_image("a:1", days=30), old_image("a:2", days=1)
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    change(build, manifest_digest=awaited.descriptor.digest)
    change(build_commit(algorithm, OTHER_HASH), manifest_digest=other.descriptor.digest)
    push(fresh(build), make_registry())
    collect_if_full()
    assert (is_there(awaited), is_there(other)) == (True, False)
