"""The image store on disk: content-addressed, atomic, and safe for several processes."""

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import ErrorClass, WorkError
from tests.concurrency import run_concurrently
from tests.unit.workers.images.images import add_image
from workers.images.image_store import StoreUse, held_image
from workers.images.layout import LayoutStore
from workers.images.oci import digest_of

ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "images")


def read(use: StoreUse, digest: str, offset: int = 0) -> bytes:
    with use.open(digest, offset) as reader:
        return b"".join(iter(lambda: reader.read(7), b""))


def blobs(store: LayoutStore) -> set[str]:
    return {path.name for path in store._blobs.iterdir()}


def test_what_was_added_is_read_back_from_any_offset(store: LayoutStore) -> None:
    with store.use() as use:
        digest, size = use.add([b"in ", b"two ", b"pieces"])
        assert (digest, size) == (digest_of(b"in two pieces"), 13)
        assert (use.hold(digest), read(use, digest), read(use, digest, 7)) == (13, b"in two pieces", b"pieces")


def test_what_is_not_there_is_told(store: LayoutStore) -> None:
    with store.use() as use:
        assert use.hold(ABSENT) is None
        assert use.named("acme/none:1") is None
        with pytest.raises(WorkError) as lost, use.open(ABSENT):
            pass
    assert lost.value.error_class == ErrorClass.TRANSIENT


def test_a_content_that_is_not_what_it_should_be_is_not_kept(store: LayoutStore) -> None:
    with store.use() as use, pytest.raises(WorkError) as damaged:
        use.add([b"something else"], ABSENT)
    assert damaged.value.error_class == ErrorClass.TRANSIENT
    assert blobs(store) == set()


def test_nothing_is_seen_of_a_blob_whose_writer_fails(store: LayoutStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a beginning"
        raise RuntimeError

    with store.use() as use, pytest.raises(RuntimeError):
        use.add(chunks())
    assert blobs(store) == set()


def test_what_the_source_of_a_blob_fails_with_is_not_said_of_the_disk(store: LayoutStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a beginning"
        raise ConnectionResetError("by the registry")

    with store.use() as use, pytest.raises(ConnectionResetError, match="by the registry"):
        use.add(chunks())
    assert blobs(store) == set()


def test_an_image_is_found_by_its_name_and_by_its_digest(store: LayoutStore) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
    with store.use() as use:
        assert use.named("acme/one:1") == image.descriptor
        held = held_image(use, image.descriptor.digest)
        assert held is not None
        assert held.blobs == image.blobs


@pytest.mark.parametrize("harm", ["removed", "cut short"])
def test_an_image_of_which_something_is_missing_is_not_there(store: LayoutStore, harm: str) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
        layer = store._blobs / image.layers[0].digest.removeprefix("sha256:")
        layer.unlink() if harm == "removed" else os.truncate(layer, 5)
        assert use.named("acme/one:1") is None
        assert held_image(use, image.descriptor.digest) is None
        assert not layer.exists(), "a damaged blob is removed, so that it is made again"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100, None], ids=["empty", "cut short", "other", "zeros"])
def test_a_damaged_manifest_is_forgotten_and_made_again(store: LayoutStore, content: bytes | None) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
    path = store._blobs / image.descriptor.digest.removeprefix("sha256:")
    path.write_bytes(bytes(image.descriptor.size) if content is None else content)
    with store.use() as use:
        assert held_image(use, image.descriptor.digest) is None
        assert not path.exists()
        use.add([image.content])
        assert held_image(use, image.descriptor.digest) is not None
        assert use.named("acme/one:1") == image.descriptor


def test_what_is_no_manifest_though_it_is_whole_is_an_error(store: LayoutStore) -> None:
    with store.use() as use:
        digest, _ = use.add([b"a layer"])
        with pytest.raises(WorkError) as refused:
            held_image(use, digest)
        assert use.hold(digest) == 7
    assert refused.value.error_class == ErrorClass.INVALID


def test_what_is_there_with_another_size_is_replaced(store: LayoutStore) -> None:
    with store.use() as use:
        digest, size = use.add([b"a layer"])
        os.truncate(store._blobs / digest.removeprefix("sha256:"), 3)
        assert use.add([b"a layer"]) == (digest, size)
        assert read(use, digest) == b"a layer"


def test_what_is_added_again_is_new_again(store: LayoutStore) -> None:
    with store.use() as use:
        digest, _ = use.add([b"once"])
        path = store._blobs / digest.removeprefix("sha256:")
        os.utime(path, (0, 0))
        use.add([b"once"])
    assert path.stat().st_mtime > time.time() - 60


def test_what_is_there_is_not_written_again(store: LayoutStore) -> None:
    with store.use() as use:
        digest, _ = use.add([b"once"])
        before = (store._blobs / digest.removeprefix("sha256:")).stat().st_ino
        use.add([b"once"])
        assert (store._blobs / digest.removeprefix("sha256:")).stat().st_ino == before


def test_it_is_an_image_layout_as_the_specification_says(store: LayoutStore) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
    assert json.loads((store._directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store._directory / "index.json").read_text())
    assert (index["schemaVersion"], len(index["manifests"])) == (2, 1)
    [entry] = index["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "acme/one:1"}
    assert (entry["digest"], entry["size"]) == (image.descriptor.digest, image.descriptor.size)


def test_names_written_at_once_by_threads_are_all_kept(store: LayoutStore) -> None:
    def add(number: int) -> None:
        with store.use() as use:
            add_image(use, f"acme/one:{number}")

    run_concurrently(*[lambda number=number: add(number) for number in range(16)])
    assert set(store._index.names()) == {f"acme/one:{number}" for number in range(16)}


def _add_in_a_process(directory: Path, number: int) -> None:
    with LayoutStore(directory).use() as use:
        for turn in range(10):
            add_image(use, f"acme/p{number}:{turn}", b"the same layer of all")


def test_names_written_at_once_by_processes_are_all_kept(store: LayoutStore) -> None:
    spawned = multiprocessing.get_context("spawn")
    processes = [spawned.Process(target=_add_in_a_process, args=(store._directory, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(store._index.names()) == 30
    with store.use() as use:
        assert all(use.named(name) is not None for name in store._index.names())


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(WorkError) as refused:
        LayoutStore(tmp_path)
    assert refused.value.error_class == ErrorClass.UNAVAILABLE
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_a_layout_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(WorkError, match=r"2\.0\.0"):
        LayoutStore(tmp_path)


def test_a_damaged_index_says_what_to_do(store: LayoutStore) -> None:
    (store._directory / "index.json").write_text("{}")
    with store.use() as use, pytest.raises(WorkError, match="move the directory away"):
        use.named("acme/one:1")


def test_a_directory_that_was_moved_away_is_made_anew(store: LayoutStore, tmp_path: Path) -> None:
    with store.use() as use:
        add_image(use, "acme/one:1")
    store._directory.rename(tmp_path / "away")
    with store.use() as use:
        image = add_image(use, "acme/two:1")
        assert use.named("acme/one:1") is None
        assert use.named("acme/two:1") == image.descriptor


def test_a_lost_index_is_not_taken_for_one_without_names(store: LayoutStore) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
    index = store._directory / "index.json"
    content = index.read_bytes()
    index.unlink()
    for opened in (store, LayoutStore(store._directory)):
        with opened.use() as use, pytest.raises(WorkError, match="put it back") as refused:
            use.name("acme/two:1", image.descriptor)
        assert refused.value.error_class == ErrorClass.UNAVAILABLE
    index.write_bytes(content)
    with store.use() as use:
        assert use.named("acme/one:1") == image.descriptor


def test_an_index_that_was_changed_is_read_again_whatever_its_times_say(store: LayoutStore) -> None:
    with store.use() as use:
        image = add_image(use, "acme/one:1")
        index = store._directory / "index.json"
        before = index.stat()
        index.write_bytes(index.read_bytes().replace(b"acme/one:1", b"acme/two:1"))
        os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
        use.name("acme/three:1", image.descriptor)
    assert set(store._index.names()) == {"acme/two:1", "acme/three:1"}


def test_what_is_being_written_or_removed_meanwhile_is_no_part_of_its_size(store: LayoutStore) -> None:
    with store.use() as use:
        use.add([b"four"])
    (store._blobs / ".0123.part").write_bytes(b"half")
    (store._blobs / ("0" * 64)).symlink_to("removed")  # it is listed, but missing when its status is read
    assert store.size_bytes() == 4


def test_past_its_limit_it_is_brought_below_it(store: LayoutStore) -> None:
    with store.use() as use:
        use.add([bytes(1000)])
    assert store.collection_target(999) == 899
    with store.use() as use:
        use.add([bytes(1001)])
    assert store.collection_target(2001) is None


def test_who_adds_nothing_does_not_look_at_the_size_again(store: LayoutStore) -> None:
    with store.use() as use:
        use.add([bytes(1000)])
    assert store.collection_target(2000) is None
    with store.use() as use:
        use.add([bytes(1000)])
    assert store.collection_target(999) is None
    with store.use() as use:
        use.add([bytes(1001)])
    assert store.collection_target(999) == 899


def _note_on_a_full_disk(directory: Path, results: "multiprocessing.Queue[tuple[str, set[str]]]") -> None:
    store = LayoutStore(directory)
    noted, cut_short, after = ("sha256:" + digit * 64 for digit in "123")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with store.use() as use:
        use.hold(noted)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
        try:
            use.hold(cut_short)
        except WorkError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            use.hold(after)
            results.put((error.message, store._roots.read() & {noted, cut_short, after}))


def test_a_note_that_was_cut_short_is_an_error_and_spoils_no_other(store: LayoutStore) -> None:
    spawned = multiprocessing.get_context("spawn")
    results = spawned.Queue()
    process = spawned.Process(target=_note_on_a_full_disk, args=(store._directory, results))
    process.start()
    process.join(60)
    message, held = results.get(timeout=1)
    assert "no space left" in message
    assert held == {"sha256:" + digit * 64 for digit in "13"}


def _fill_the_disk(directory: Path, results: "multiprocessing.Queue[tuple[str, str]]") -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = LayoutStore(directory)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        with store.use() as use:
            use.add([b"x" * 8192])
    except WorkError as error:
        results.put((error.error_class.value, error.message))


def test_a_disk_that_takes_no_more_makes_the_job_wait(store: LayoutStore) -> None:
    spawned = multiprocessing.get_context("spawn")
    results = spawned.Queue()
    process = spawned.Process(target=_fill_the_disk, args=(store._directory, results))
    process.start()
    error_class, message = results.get(timeout=60)
    process.join(60)
    assert error_class == ErrorClass.UNAVAILABLE
    assert "the job waits" in message
    assert blobs(store) == set()
