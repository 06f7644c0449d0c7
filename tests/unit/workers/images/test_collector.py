"""The collector frees space and never removes what a job needs."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.services.mounts import memory_disk
from dev.services.processes import ServiceFailedError
from shared.errors import WorkError
from shared.file_lock import file_lock
from tests.unit.workers.images.images import add_image
from workers.images.collector import GRACE_SECONDS, Collector, stored_blobs
from workers.images.disk import GRACE_SECONDS as UNFINISHED_GRACE_SECONDS
from workers.images.image_store import held_image
from workers.images.layout import LayoutStore
from workers.images.oci import Manifest

LONG = GRACE_SECONDS + 100


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "images")


def age(store: LayoutStore, image: Manifest | None = None, seconds: float = LONG) -> None:
    """Set the last use of an image, or of all blobs, to long ago."""
    digests = None if image is None else {image.descriptor.digest, *(blob.digest for blob in image.blobs)}
    for path in store._blobs.iterdir():
        if digests is None or f"sha256:{path.name}" in digests:
            os.utime(path, (time.time() - seconds,) * 2)


def added(store: LayoutStore, name: str | None, *layers: bytes) -> Manifest:
    with store.use() as use:
        return add_image(use, name, *layers)


def collector(store: LayoutStore) -> Collector:
    return Collector(store._directory, store._blobs, store._index, store._roots)


@contextmanager
def in_the_middle_of_a_collection(store: LayoutStore) -> Iterator[None]:
    """Run the block after the collector has chosen all names as candidates, and before it removes them."""
    begun = collector(store)
    candidates = begun._candidates(0, stored_blobs(store._blobs), set())
    yield
    begun._remove(candidates, keep=())


def is_whole(store: LayoutStore, image: Manifest) -> bool:
    return all(
        (store._blobs / each.digest.removeprefix("sha256:")).exists() for each in (image.descriptor, *image.blobs)
    )


def test_what_was_not_used_for_longest_goes_first(store: LayoutStore) -> None:
    images = [added(store, f"acme/one:{number}") for number in range(3)]
    for number, image in enumerate(images):
        age(store, image, LONG + 100 - number)
    with store.use() as use:
        assert use.named("acme/one:0"), "used again"
    done = store.collect(store.size_bytes() - 1)
    assert done is not None
    assert (done.names_removed, done.bytes_after) == (1, store.size_bytes())
    assert [is_whole(store, image) for image in images] == [True, False, True]


def test_all_names_of_an_image_go_before_any_of_the_next(store: LayoutStore) -> None:
    images = [added(store, f"a/{number}:1") for number in range(2)]
    with store.use() as use:
        for number, image in enumerate(images):
            use.name(f"b/{number}:1", image.descriptor)
    moment = time.time() - LONG
    for path in store._blobs.iterdir():
        os.utime(path, (moment, moment))
    store.collect(store.size_bytes() - 1)
    assert sorted(is_whole(store, image) for image in images) == [False, True]
    assert len(store._index.names()) == 2, "both names of the other image"


def test_within_the_limit_nothing_that_has_a_name_goes(store: LayoutStore) -> None:
    image, loose = added(store, "acme/one:1"), added(store, None)
    age(store)
    store.collect(store.size_bytes())
    assert (is_whole(store, image), is_whole(store, loose)) == (True, False)


def test_what_was_added_a_moment_ago_stays(store: LayoutStore) -> None:
    image = added(store, None)
    done = store.collect(0)
    assert done is not None
    assert is_whole(store, image)


def test_what_is_awaited_stays(store: LayoutStore) -> None:
    awaited, other = added(store, "acme/one:1"), added(store, "acme/two:1")
    age(store)
    store.collect(0, keep={awaited.descriptor.digest})
    assert (is_whole(store, awaited), is_whole(store, other)) == (True, False)


def test_what_somebody_uses_stays_until_the_use_ends(store: LayoutStore) -> None:
    image, newer = added(store, "acme/one:1"), added(store, "acme/two:1")
    with store.use() as use:
        assert held_image(use, image.descriptor.digest)
        age(store)
        age(store, image, LONG + 100)
        store.collect(store.size_bytes() - 1)
        assert (is_whole(store, image), is_whole(store, newer)) == (True, False)
        assert set(store._index.names()) == {"acme/one:1"}
    age(store)
    store.collect(0)
    assert not is_whole(store, image)


def test_a_layer_that_another_image_shares_stays(store: LayoutStore) -> None:
    shared = os.urandom(4096)
    old, new = added(store, "acme/old:1", shared, b"old"), added(store, "acme/new:1", shared, b"new")
    age(store, old)
    age(store, new, LONG - 50)
    store.collect(store.size_bytes() - 1)
    assert (is_whole(store, old), is_whole(store, new)) == (False, True)


def test_a_name_that_stands_for_another_image_by_now_stays(store: LayoutStore) -> None:
    added(store, "acme/one:1")
    age(store)
    with in_the_middle_of_a_collection(store):
        image = added(store, "acme/one:1")
    with store.use() as use:
        assert use.named("acme/one:1") == image.descriptor


def test_what_was_added_again_meanwhile_stays(store: LayoutStore) -> None:
    layer = os.urandom(1024)
    added(store, "acme/one:1", layer)
    age(store)
    with in_the_middle_of_a_collection(store), store.use() as use:
        digest, _ = use.add([layer])
    with store.use() as use:
        assert use.hold(digest) == len(layer)


def test_what_was_held_meanwhile_stays_and_keeps_its_name(store: LayoutStore) -> None:
    image = added(store, "acme/one:1")
    age(store)
    with store.use() as use:
        with in_the_middle_of_a_collection(store):
            assert held_image(use, image.descriptor.digest)
            age(store)
        assert use.named("acme/one:1") == image.descriptor


def test_what_was_named_meanwhile_out_of_what_is_old_stays(store: LayoutStore) -> None:
    """Like the layers of a base image that a long build held: old, and without a root once it has ended."""
    old = added(store, "acme/base:1", b"the base")
    age(store)
    with in_the_middle_of_a_collection(store):
        with store.use() as use:
            assert held_image(use, old.descriptor.digest)
            image = add_image(use, "acme/one:1", b"the base", b"the source")
        age(store)
    assert is_whole(store, image)


def test_without_an_index_nothing_is_collected(store: LayoutStore) -> None:
    image, loose = added(store, "acme/one:1"), added(store, None)
    age(store)
    (store._directory / "index.json").unlink()
    with pytest.raises(WorkError, match=r"index\.json is gone"):
        store.collect(0)
    assert (is_whole(store, image), is_whole(store, loose)) == (True, True)


def fill(directory: Path) -> None:
    with suppress(OSError), (directory / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_disk_without_a_byte_of_room_is_collected(tmp_path: Path) -> None:
    with ExitStack() as mounted:
        try:
            disk = mounted.enter_context(memory_disk(tmp_path / "disk", megabytes=4))
        except ServiceFailedError as refused:
            pytest.skip(str(refused))
        store = LayoutStore(disk / "images")
        old, new = (added(store, f"acme/one:{number}", os.urandom(1024 * 1024)) for number in range(2))
        age(store, old)
        with store.use() as use, pytest.raises(WorkError, match="no space left"):
            use.add([bytes(4096)] * 1024)
        fill(disk)
        target = store.collection_target(10**9)
        assert target == int(store.size_bytes() * 0.8)
        assert store.collect(target) is not None
        assert (is_whole(store, old), is_whole(store, new)) == (False, True)
        assert set(store._index.names()) == {"acme/one:1"}


def test_a_manifest_is_read_once_in_a_collection(store: LayoutStore) -> None:
    image = added(store, "acme/one:1")
    begun = collector(store)
    reached = begun._reachable_from(image.descriptor.digest)
    (store._blobs / image.descriptor.digest.removeprefix("sha256:")).unlink()
    assert begun._reachable_from(image.descriptor.digest) == reached > {image.descriptor.digest}


def _hold_and_die(directory: Path, digest: str) -> None:
    begun = LayoutStore(directory).use()
    use = begun.__enter__()
    assert held_image(use, digest)
    os._exit(0)


def test_what_a_killed_process_held_is_free(store: LayoutStore) -> None:
    image = added(store, "acme/one:1")
    process = multiprocessing.get_context("spawn").Process(
        target=_hold_and_die, args=(store._directory, image.descriptor.digest)
    )
    process.start()
    process.join(60)
    assert len(list((store._directory / "uses").iterdir())) == 1
    age(store)
    store.collect(0)
    assert not is_whole(store, image)
    assert list((store._directory / "uses").iterdir()) == []


def test_what_a_killed_writer_left_is_removed(store: LayoutStore) -> None:
    left, begun = store._blobs / ".0123.part", store._blobs / ".4567.part"
    for path in (left, begun):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - UNFINISHED_GRACE_SECONDS - 1,) * 2)
    store.collect(0)
    assert not left.exists()
    assert begun.exists(), "its writer may not have locked it yet"


def test_one_collects_at_a_time(store: LayoutStore) -> None:
    image = added(store, "acme/one:1")
    age(store)
    with file_lock(store._directory / "collector.lock"):
        assert store.collect(0) is None
    assert is_whole(store, image)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "hold", "end", "collect"]), st.integers(0, 5), st.booleans()), max_size=30
    )
)
def test_whatever_happens_nothing_that_is_held_or_awaited_is_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    store = LayoutStore(tmp_path_factory.mktemp("layout") / "images")
    images: list[Manifest] = []
    held: dict[int, ExitStack] = {}
    shared = os.urandom(64)
    for what, number, flag in steps:
        if what == "add":
            images.append(added(store, f"acme/one:{number}" if flag else None, shared, os.urandom(64)))
        elif what == "hold" and number < len(images) and number not in held:
            stack = ExitStack()
            use = stack.enter_context(store.use())
            if held_image(use, images[number].descriptor.digest):
                held[number] = stack
            else:
                stack.close()
        elif what == "end" and number in held:
            held.pop(number).close()
        elif what == "collect":
            keep = (
                {images[number].descriptor.digest}
                if number < len(images) and is_whole(store, images[number])
                else set()
            )
            age(store)
            store.collect(200 if flag else 0, keep)
            assert all(is_whole(store, image) for image in images if image.descriptor.digest in keep)
        assert all(is_whole(store, images[number]) for number in held)
    for stack in held.values():
        stack.close()
