"""A collector in its own process, while builders add blobs again, move names and end their uses."""

import multiprocessing
import os
import time
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.unit.workers.images.images import add_image
from workers.images.collector import GRACE_SECONDS
from workers.images.image_store import held_image
from workers.images.layout import LayoutStore
from workers.images.oci import Manifest

BUILDERS, ROUNDS = 3, 25
BASE = b"the base of all"


def _collect(directory: Path, begun: Event, over: Event, results: "multiprocessing.Queue[tuple[int, int]]") -> None:
    """Collect continuously, as if the store were always too large."""
    store = LayoutStore(directory)
    names_removed = bytes_removed = 0
    while not over.is_set():
        done = store.collect(0)
        begun.set()
        if done is not None:
            names_removed += done.names_removed
            bytes_removed += done.bytes_before - done.bytes_after
    results.put((names_removed, bytes_removed))


def _build(store: LayoutStore, number: int) -> None:
    name, layer = f"acme/p{number}:1", f"the source of {number}".encode()
    for _ in range(ROUNDS):
        with store.use() as use:
            old = add_image(use, name, BASE, layer)
        _age(store, old)
        with store.use() as use:
            held = held_image(use, old.descriptor.digest)
            _age(store, old)
            assert held is None or held_image(use, old.descriptor.digest) is not None, "a held blob was lost"
        _age(store, old)
        with store.use() as use:
            new = add_image(use, name, BASE, layer)
        with store.use() as use:
            assert use.named(name) == new.descriptor, "an image that was just named was lost"


def _age(store: LayoutStore, image: Manifest) -> None:
    """Allow the image to be collected; blobs that it shares with others then seem old too."""
    for blob in (image.descriptor, *image.blobs):
        with suppress(FileNotFoundError):
            os.utime(store._blobs / blob.digest.removeprefix("sha256:"), (time.time() - GRACE_SECONDS - 100,) * 2)


def test_whatever_builders_do_every_name_is_whole(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "images")
    spawned = multiprocessing.get_context("spawn")
    begun, over, results = spawned.Event(), spawned.Event(), spawned.Queue()
    collector = spawned.Process(target=_collect, args=(store._directory, begun, over, results))
    collector.start()
    try:
        assert begun.wait(TIMEOUT_SECONDS)
        run_concurrently(*[lambda number=number: _build(store, number) for number in range(BUILDERS)])
    finally:
        over.set()
        names_removed, bytes_removed = results.get(timeout=TIMEOUT_SECONDS)
        collector.join(TIMEOUT_SECONDS)
    assert collector.exitcode == 0
    assert names_removed > 0, "the test proves nothing"
    assert bytes_removed > 0, "the test proves nothing"
    names = store._index.names()
    assert set(names) == {f"acme/p{number}:1" for number in range(BUILDERS)}
    with store.use() as use:
        assert all(use.named(name) == manifest for name, manifest in names.items())
