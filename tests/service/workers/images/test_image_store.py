"""Both image stores pass the same tests: the layout on disk, and a real home registry."""

import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.registry.address import RegistryAddress
from shared.registry.credentials import Credentials
from tests.concurrency import TIMEOUT_SECONDS
from tests.silent_server import silent_server
from tests.unit.workers.images.images import add_image
from workers.images.home_registry import BLOCK_BYTES, HomeRegistry
from workers.images.image_store import ImageStore, StoreUse, held_image
from workers.images.layout import LayoutStore
from workers.images.oci import Manifest

NOWHERE = "sha256:" + "0" * 64


PUSHER = Credentials("pusher", "secret")


def home(registry: PrivateRegistry, path: str = "", credentials: Credentials = PUSHER) -> HomeRegistry:
    address = RegistryAddress.parse(f"{registry.url}/{path or uuid.uuid4().hex}")
    return HomeRegistry(address, credentials, ca_certificate=registry.authority_pem)


@pytest.fixture(params=["layout", "registry", "tls_registry"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    if request.param == "layout":
        return LayoutStore(tmp_path / "images")
    return home(request.getfixturevalue(request.param))


def read(use: StoreUse, digest: str, offset: int = 0) -> bytes:
    with use.open(digest, offset) as reader:
        return b"".join(iter(lambda: reader.read(65_536), b""))


def test_what_one_use_added_another_reads_from_any_offset(store: ImageStore) -> None:
    content = os.urandom(2 * BLOCK_BYTES + 17)
    with store.use() as use:
        digest, size = use.add(content[at : at + 100_000] for at in range(0, len(content), 100_000))
    assert size == len(content)
    with store.use() as use:
        assert use.hold(digest) == len(content)
        assert read(use, digest) == content
        assert read(use, digest, BLOCK_BYTES + 5) == content[BLOCK_BYTES + 5 :]


def test_what_is_not_there_is_told(store: ImageStore) -> None:
    with store.use() as use:
        assert use.hold(NOWHERE) is None
        assert use.named("nothing/of:that-name") is None
        assert held_image(use, NOWHERE) is None


def test_what_is_not_what_it_should_be_is_not_kept(store: ImageStore) -> None:
    with store.use() as use:
        with pytest.raises(WorkError, match="damaged on its way") as damaged:
            use.add([b"something else"], NOWHERE)
        assert damaged.value.error_class == ErrorClass.TRANSIENT
        assert use.hold(NOWHERE) is None


def test_an_image_is_found_by_its_name_and_by_its_digest(store: ImageStore) -> None:
    name = "alice/Hello.World:0123456789abcdef0123456789abcdef01234567"
    with store.use() as use:
        manifest = add_image(use, name)
    with store.use() as use:
        assert use.named(name) == manifest.descriptor
        assert held_image(use, manifest.descriptor.digest) == Manifest.parse(manifest.content)
        assert read(use, manifest.descriptor.digest) == manifest.content


def test_a_name_stands_for_what_it_was_given_last(store: ImageStore) -> None:
    with store.use() as use:
        add_image(use, "requirements/abc")
        newer = add_image(use, "requirements/abc")
        assert use.named("requirements/abc") == newer.descriptor


def test_several_threads_read_at_once(store: ImageStore) -> None:
    with store.use() as use:
        blobs = {use.add([content])[0]: content for content in (os.urandom(300_000) for _ in range(4))}
        parts: dict[str, bytes] = {}
        threads = [threading.Thread(target=lambda each=each: parts.update({each: read(use, each)})) for each in blobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert parts == blobs


def test_an_image_of_which_a_layer_is_lost_is_not_there_under_its_name(store: ImageStore) -> None:
    name = f"a/b:{uuid.uuid4().hex}"
    with store.use() as use:
        manifest = add_image(use, name)
        use.forget(manifest.layers[0].digest)
    with store.use() as use:
        assert use.named(name) is None
        assert held_image(use, manifest.descriptor.digest) is None


def test_what_was_damaged_is_made_again(store: ImageStore) -> None:
    content = os.urandom(1000)
    with store.use() as use:
        digest, _ = use.add([content])
        use.forget(digest)
        assert use.hold(digest) is None
        assert use.add([content], digest) == (digest, 1000)
        assert use.hold(digest) == 1000


def test_what_goes_wrong_elsewhere_is_not_laid_on_the_store(store: ImageStore) -> None:
    with store.use() as use:
        digest, _ = use.add([b"content"])
        with pytest.raises(WorkError, match="of the reader's own") as read, use.open(digest):
            raise WorkError(ErrorClass.INVALID, "An error of the reader's own.")
        with pytest.raises(WorkError, match="of the source's own") as added:
            use.add(failing())
    assert (read.value.error_class, added.value.error_class) == (ErrorClass.INVALID, ErrorClass.INVALID)


def failing() -> Iterator[bytes]:
    yield b"begin"
    raise WorkError(ErrorClass.INVALID, "An error of the source's own.")


def test_a_stop_ends_what_waits_for_a_home_registry() -> None:
    stop = CancelToken()
    with silent_server() as (host, reached):
        store = HomeRegistry(RegistryAddress.parse(f"http://{host}/x"), PUSHER)

        def cancel() -> None:
            if reached.wait(TIMEOUT_SECONDS):
                stop.cancel("cancelled")

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(WorkCancelledError, match="cancelled"), store.use(stop) as use:
            use.hold(NOWHERE)
        canceller.join()


def test_other_tools_read_the_layout(tmp_path: Path) -> None:
    """image-spec 1.1: any tool for image layouts finds an image by its name."""
    store = LayoutStore(tmp_path / "images")
    with store.use() as use:
        manifest = add_image(use, "alice/hello:0123456789abcdef0123456789abcdef01234567")
        add_image(use, f"environment/{'0' * 64}")
    for name in ("alice/hello:0123456789abcdef0123456789abcdef01234567", f"environment/{'0' * 64}"):
        done = subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci:{tmp_path / 'images'}:{name}"], check=True, capture_output=True
        )
        assert (done.stdout == manifest.content) == name.startswith("alice/")


def test_a_home_registry_that_refuses_has_the_job_wait(registry: PrivateRegistry) -> None:
    with home(registry, credentials=Credentials("pusher", "wrong")).use() as use, pytest.raises(WorkError) as refused:
        use.hold(NOWHERE)
    assert refused.value.error_class == ErrorClass.UNAVAILABLE
    assert "The home registry" in refused.value.message
    assert "wrong" not in refused.value.message


def test_workers_share_a_home_registry(registry: PrivateRegistry) -> None:
    with home(registry, "pool").use() as use:
        manifest = add_image(use, f"shared/{uuid.uuid4().hex}")
    with home(registry, "pool").use() as use:
        assert held_image(use, manifest.descriptor.digest) == Manifest.parse(manifest.content)
