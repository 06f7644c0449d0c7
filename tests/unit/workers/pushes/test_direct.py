"""The direct transport with a fake registry that imitates registries which cannot run here."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dev.services.certificates import ServerCertificate, write_server_certificate
from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.file_lock import file_lock, try_file_lock
from shared.net.connections import Proxy
from shared.pushes.progress import Progress
from shared.registry import upload, upload_session
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload import BlobOutcome
from tests.concurrency import TIMEOUT_SECONDS
from tests.environment import longshore_environment
from tests.unit.workers.images.images import add_image
from tests.unit.workers.pushes.fake_registry import FakeRegistry, fake_registry
from workers.images.image_store import StoreUse
from workers.images.layout import LayoutStore
from workers.images.oci import Manifest
from workers.pushes.transports import blobs
from workers.pushes.transports.direct import DirectTransport, UploadLimits, upload_slots
from workers.pushes.transports.transport import PushedImage

PATH = "acme/one"
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path, tables=False):
        yield


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay."""
    monkeypatch.setattr(upload, "FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "images")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return write_server_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def use(store: LayoutStore) -> Iterator[StoreUse]:
    with store.use() as begun:
        yield begun


@pytest.fixture
def image(use: StoreUse) -> Manifest:
    return add_image(use, "acme/one:1", os.urandom(3 * MEBIBYTE), os.urandom(1000))


class Push:
    """A push, and its reported progress."""

    def __init__(self, registry: FakeRegistry, image: Manifest, use: StoreUse, **options: Any) -> None:
        self.reports: list[tuple[Progress, str]] = []
        self.fences: list[str] = []
        self.fence = self.fences.append
        self.stop = CancelToken()
        self._where = registry.host
        self._image, self._use, self._options = image, use, options

    def run(
        self,
        *tags: str,
        credentials: Credentials | None = None,
        proxy: str | None = None,
        trust: ServerCertificate | None = None,
    ) -> PushedImage:
        address = RegistryAddress.parse(f"http://{self._where}")
        with RegistryClient(
            address,
            credentials,
            ca_certificate=trust.authority_pem if trust else None,
            cancel_token=self.stop,
            proxy=Proxy.parse(proxy) if proxy else None,
        ) as client:
            transport = DirectTransport(client, PATH, self._image, self._use, stop=self.stop, **self._options)
            return transport.push(
                tags or ("1",), before_tag=self.fence, on_progress=lambda *report: self.reports.append(report)
            )


def has_all(registry: FakeRegistry, image: Manifest, *tags: str) -> bool:
    blobs = all((PATH, blob.digest) in registry.blobs for blob in image.blobs)
    return blobs and all(registry.manifests[PATH, tag][1] == image.content for tag in tags or ("1",))


def test_an_image_is_pushed_as_it_is_under_every_tag(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    push = Push(registry, image, use)
    assert push.run("1", "1.0.0") == PushedImage(
        image.descriptor.digest, outcomes=dict.fromkeys((blob.digest for blob in image.blobs), BlobOutcome.UPLOADED)
    )
    assert has_all(registry, image, "1", "1.0.0")
    assert push.fences == ["1", "1.0.0"], "the fence is checked before each tag is set"


def test_the_manifest_comes_last_and_by_its_digest_first(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    Push(registry, image, use).run("1")
    puts = registry.requests("PUT")
    assert [path.rpartition("/")[2] for path in puts[-2:]] == [image.descriptor.digest, "1"]
    assert all("/upload/" in path for path in puts[:-2])


def test_what_is_there_under_the_tag_is_looked_at_and_left_alone(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    Push(registry, image, use).run("1")
    registry.received.clear()
    push = Push(registry, image, use)
    assert push.run("1").digest == image.descriptor.digest
    assert [(method, path.rpartition("/")[2]) for method, path, _ in registry.received] == [
        ("GET", "1"),
        *(("HEAD", blob.digest) for blob in image.blobs),
    ]
    assert push.fences == [], "no tag was set"


def test_a_new_tag_of_what_is_there_sends_no_blob(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    Push(registry, image, use).run("1")
    registry.received.clear()
    Push(registry, image, use).run("1", "1.0.0")
    assert registry.requests("PATCH") == []
    assert has_all(registry, image, "1.0.0")


@pytest.mark.parametrize("tag", ["1", "2"])
def test_a_layer_that_was_lost_while_its_manifest_stayed_is_sent_again(
    registry: FakeRegistry, image: Manifest, use: StoreUse, tag: str
) -> None:
    Push(registry, image, use).run("1")
    del registry.blobs[PATH, image.layers[0].digest]
    Push(registry, image, use).run(tag)
    assert has_all(registry, image, tag)


@pytest.mark.parametrize("heard", [504, 0])
def test_a_layer_that_was_finished_without_our_hearing_of_it_is_not_sent_again(
    registry: FakeRegistry, image: Manifest, use: StoreUse, heard: int
) -> None:
    registry.commit_statuses = [heard]
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    assert sum(int(headers["Content-Length"]) for method, _, headers in registry.received if method == "PATCH") == sum(
        blob.size for blob in image.blobs
    )


@pytest.mark.parametrize("answer", [(503, {"Retry-After": "0"}), (502, {})])
def test_a_hiccup_before_the_first_byte_is_no_failure(
    registry: FakeRegistry,
    image: Manifest,
    use: StoreUse,
    answer: tuple[int, dict[str, str]] | tuple[int, dict[str, Any]],
) -> None:
    registry.refusals["POST"] = [answer]
    Push(registry, image, use).run()
    assert has_all(registry, image)


def test_a_registry_that_asks_for_a_long_rest_is_left_alone_by_the_whole_push(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.refusals["POST"] = [(503, {"Retry-After": "120"})]
    with pytest.raises(WorkError) as busy:
        Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert busy.value.retry_after == 120
    assert len(registry.requests("POST")) == 1


def test_a_long_layer_over_a_bad_line_arrives_as_long_as_it_gets_on(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.interrupts_after = [MEBIBYTE // 4] * 10
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)


def test_what_was_all_sent_before_it_broke_is_only_finished(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.interrupts_after = [3 * MEBIBYTE]
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    assert len(registry.requests("PATCH")) == 3, "each blob once"


def test_a_refused_layer_ends_the_push_at_once(
    registry: FakeRegistry, image: Manifest, use: StoreUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the delays of uploads that are retried."""
    monkeypatch.setattr(upload, "FIRST_DELAY_SECONDS", 40.0)
    registry.refusals["PATCH"] = [(503, {}), (503, {}), (403, {})]
    with pytest.raises(WorkError) as refused:
        Push(registry, image, use).run()
    assert refused.value.error_class == ErrorClass.AUTH


def test_what_ends_the_waiting_for_uploads_ends_the_uploads(
    registry: FakeRegistry, image: Manifest, use: StoreUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit of a task raises during the wait."""

    def out_of_time(*_arguments: object, **_options: object) -> object:
        raise TimeoutError

    monkeypatch.setattr(blobs, "wait", out_of_time)
    monkeypatch.setattr(upload, "FIRST_DELAY_SECONDS", 40.0)
    registry.refusals["PATCH"] = [(503, {})] * 3
    with pytest.raises(TimeoutError):
        Push(registry, image, use).run()


def test_a_registry_that_redirects_heads_to_a_storage_that_takes_none_gets_the_layer(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    with fake_registry() as storage:
        storage.refusals["HEAD"] = [(403, {})] * 3
        registry.heads_at = f"http://{storage.host}"
        Push(registry, image, use).run()
    assert has_all(registry, image)


def test_an_upload_address_that_ended_is_asked_for_again(
    registry: FakeRegistry, image: Manifest, use: StoreUse, certificate: ServerCertificate
) -> None:
    with fake_registry(certificate) as storage:
        storage.uploads, storage.blobs = registry.uploads, registry.blobs
        storage.refusals["PATCH"] = [(403, {})]
        registry.uploads_at = f"https://{storage.host}"
        Push(registry, image, use, limits=UploadLimits(per_push=1)).run(trust=certificate)
    assert has_all(registry, image)
    assert len(registry.requests("POST")) == 4


def test_the_putting_of_a_tag_ends_in_time_whatever_its_token_takes(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    """Once the claim may be lost after the fence was checked, nothing more reaches the registry."""
    registry.silent_at = "/token"
    realm = f"http://{registry.host}/token"
    registry.refusals_of["/manifests/1"] = (401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with pytest.raises(WorkError) as slow:
        Push(registry, image, use, limits=UploadLimits(tag_seconds=0.2)).run(
            credentials=Credentials("pusher", "secret")
        )
    assert slow.value.error_class == ErrorClass.TRANSIENT
    assert (PATH, "1") not in registry.manifests


def test_as_many_uploads_as_there_are_places_run_at_once(
    registry: FakeRegistry, image: Manifest, use: StoreUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has the only slot: nothing is sent before it is free."""
    limits = UploadLimits(per_push=1, per_registry=1, lock_directory=tmp_path)
    [slot] = upload_slots(tmp_path, registry.host, 1)
    sent_before: list[str] = []
    with ExitStack() as other_process:

        def release(_uploads: blobs.BlobUploads) -> None:
            sent_before.extend(registry.requests("PATCH"))
            other_process.close()

        monkeypatch.setattr(blobs.BlobUploads, "_check_not_given_up", release)
        other_process.enter_context(file_lock(slot))
        Push(registry, image, use, limits=limits).run()
    assert has_all(registry, image)
    assert sent_before == []
    with try_file_lock(slot) as released:
        assert released


def test_the_way_of_each_blob_is_told(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    registry.blobs["acme/other", image.layers[0].digest] = registry.blobs[PATH, image.layers[1].digest] = b"x"
    with capture_logs() as logs:
        Push(registry, image, use, mount_from={image.layers[0].digest: "acme/other"}).run()
    logged = {
        line["digest"]: (line["outcome"], line["media_type"], line["bytes"])
        for line in logs
        if line["event"] == "blob_done"
    }
    ways = ("mounted", "existed", "uploaded")
    assert logged == {
        blob.digest: (how, blob.media_type, blob.size)
        for blob, how in zip((*image.layers, image.config), ways, strict=True)
    }


def test_a_layer_that_is_there_is_not_sent(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    with use.open(image.layers[0].digest) as reader:
        registry.blobs[PATH, image.layers[0].digest] = b"".join(iter(lambda: reader.read(65536), b""))
    push = Push(registry, image, use)
    push.run()
    assert len(registry.requests("PATCH")) == 2, "the other layer and the configuration"
    last = push.reports[-1][0]
    assert (last.layers_done, last.layers_total) == (2, 2)


def test_a_layer_of_another_repository_is_mounted(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    layer = image.layers[0].digest
    registry.blobs["acme/other", layer] = b"the layer"
    Push(registry, image, use, mount_from={layer: "acme/other"}).run()
    assert registry.blobs[PATH, layer] == b"the layer"
    assert len(registry.requests("PATCH")) == 2


@pytest.mark.parametrize("refused", [None, 403, 404, 405])
def test_a_mount_that_fails_becomes_an_upload(
    registry: FakeRegistry, image: Manifest, use: StoreUse, refused: int | None
) -> None:
    if refused:
        # One of the three blobs is mounted: the largest, which starts first and alone here.
        registry.refusals["POST"] = [(refused, {})]
    Push(registry, image, use, mount_from={image.layers[0].digest: "acme/other"}, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    assert len(registry.requests("POST")) == (4 if refused else 3), "a failed mount has opened an upload"


def test_a_patch_may_be_answered_with_201(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    registry.patch_status = 201
    Push(registry, image, use).run()
    assert has_all(registry, image)


def test_a_layer_goes_in_one_piece_where_the_registry_does_not_ask_for_chunks(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.takes_chunks = False
    Push(registry, image, use).run()
    assert has_all(registry, image)
    assert len(registry.requests("PATCH")) == 3


@pytest.mark.parametrize("how", ["413", "hangs up", "advertised"])
def test_a_registry_that_wants_chunks_gets_them(
    registry: FakeRegistry, image: Manifest, use: StoreUse, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_session, "CHUNK_BYTES", 1024 * 1024)
    registry.refuses_silently = how == "hangs up"
    if how != "advertised":
        registry.max_bytes = 1024 * 1024
    else:
        registry.min_chunk = 1000
    Push(registry, image, use).run()
    assert has_all(registry, image)
    ranges = [headers["Content-Range"] for _, _, headers in registry.received if "Content-Range" in headers]
    assert "1048576-2097151" in ranges


def test_a_registry_that_takes_no_chunk_of_any_size_is_refused_with_its_answer(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.max_bytes = 1
    with pytest.raises(WorkError) as refused:
        Push(registry, image, use).run()
    assert (refused.value.error_class, "413" in refused.value.message) == (ErrorClass.INVALID, True)


def test_an_upload_that_breaks_is_taken_up_where_it_broke(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.interrupts_after = [MEBIBYTE]
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    ranges = [headers["Content-Range"] for _, _, headers in registry.received if "Content-Range" in headers]
    assert ranges == [f"{MEBIBYTE}-{3 * MEBIBYTE - 1}"]
    assert len(registry.requests("POST")) == 3


def test_an_upload_whose_rest_is_refused_begins_anew(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    registry.interrupts_after, registry.takes_chunks = [MEBIBYTE], False
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    assert len(registry.requests("POST")) == 4


def test_an_upload_that_the_registry_forgot_begins_anew(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    registry.forgotten_uploads = 1
    Push(registry, image, use, limits=UploadLimits(per_push=1)).run()
    assert has_all(registry, image)
    assert len(registry.requests("POST")) == 4


def test_a_registry_that_breaks_off_again_and_again_is_given_up(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.interrupts_after = [10] * 100
    with pytest.raises(WorkError) as broken:
        Push(registry, image, use).run()
    assert broken.value.error_class == ErrorClass.TRANSIENT
    assert broken.value.message.startswith(registry.host)


def test_a_registry_that_says_it_has_what_it_lost_gets_it_all(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.phantom_blobs = {blob.digest for blob in image.blobs}
    Push(registry, image, use).run()
    assert has_all(registry, image)


@pytest.mark.parametrize(("words", "whose"), [("application/vnd.docker.", "Docker's"), ("application/vnd.oci.", None)])
def test_a_registry_of_one_vocabulary_is_told_in_it(
    registry: FakeRegistry, image: Manifest, use: StoreUse, words: str, whose: str | None
) -> None:
    registry.media_type_prefix = words
    pushed = Push(registry, image, use).run()
    media_type, content = registry.manifests[PATH, "1"]
    assert media_type.startswith(words)
    assert pushed.digest == Manifest.parse(content).descriptor.digest
    assert (whose in pushed.remark) if whose else pushed.remark == ""
    registry.received.clear()
    assert Push(registry, image, use).run() == PushedImage(pushed.digest, pushed.remark)
    assert registry.requests("PUT") == [], "and it is not reported again"


def test_a_request_to_slow_down_is_the_whole_pushs(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    registry.refusals["PATCH"] = [(429, {"Retry-After": "7"})] * 3
    with pytest.raises(WorkError) as slow:
        Push(registry, image, use).run()
    assert (slow.value.error_class, slow.value.retry_after) == (ErrorClass.THROTTLED, 7.0)


def test_credentials_do_not_follow_an_upload_to_another_host(
    registry: FakeRegistry, image: Manifest, use: StoreUse, certificate: ServerCertificate
) -> None:
    with fake_registry(certificate) as elsewhere:
        elsewhere.uploads = registry.uploads
        elsewhere.blobs = registry.blobs
        registry.uploads_at = f"https://{elsewhere.host}"
        registry.refusals["HEAD"] = [(401, {"WWW-Authenticate": 'Basic realm="r"'})]
        Push(registry, image, use).run(credentials=Credentials("pusher", "secret"), trust=certificate)
        assert any("Authorization" in headers for _, _, headers in registry.received)
        assert len(elsewhere.requests("PATCH")) == 3
        assert not any("Authorization" in headers for _, _, headers in elsewhere.received)


def test_an_upload_is_not_sent_to_where_a_registry_may_not_lead(
    registry: FakeRegistry, image: Manifest, use: StoreUse
) -> None:
    registry.uploads_at = "http://169.254.169.254"
    with pytest.raises(WorkError) as refused:
        Push(registry, image, use).run()
    assert refused.value.error_class == ErrorClass.INVALID


def test_the_state_in_an_uploads_address_is_kept(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    Push(registry, image, use).run()
    finished = [path for path in registry.requests("PUT") if "/upload/" in path]
    assert all("?state=a%2Fb&digest=sha256%3A" in path for path in finished)


def test_a_damaged_layer_is_dropped_and_the_push_is_tried_again_later(
    registry: FakeRegistry, image: Manifest, use: StoreUse, store: LayoutStore
) -> None:
    blob = store._blobs / image.layers[1].digest.removeprefix("sha256:")
    blob.write_bytes(b"x" * 1000)
    with pytest.raises(WorkError) as damaged:
        Push(registry, image, use).run()
    assert (damaged.value.error_class, "damaged" in damaged.value.message) == (ErrorClass.TRANSIENT, True)
    assert not blob.exists()


def test_progress_is_told_by_bytes_and_layers(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    push = Push(registry, image, use)
    push.run()
    size = sum(blob.size for blob in image.blobs)
    assert push.reports[-1][0] == Progress(size, size, 2, 2)
    assert {progress.total_bytes for progress, _ in push.reports} == {size}


def test_a_fence_that_is_lost_keeps_the_tag_where_it_is(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    push = Push(registry, image, use)

    def lost(_tag: str) -> None:
        raise WorkCancelledError("taken over")

    push.fence = lost
    with pytest.raises(WorkCancelledError):
        push.run()
    assert (PATH, "1") not in registry.manifests


def test_a_stop_ends_all_uploads(registry: FakeRegistry, image: Manifest, use: StoreUse) -> None:
    gate, reached = threading.Event(), threading.Event()
    push = Push(registry, image, use)
    opened = use.open

    def slow_open(digest: str, offset: int = 0) -> object:
        reached.set()
        assert gate.wait(TIMEOUT_SECONDS)
        return opened(digest, offset)

    use.open = slow_open  # type: ignore[method-assign, assignment]
    stopped: list[BaseException] = []

    def run() -> None:
        with pytest.raises(WorkCancelledError) as raised:
            push.run()
        stopped.append(raised.value)

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(TIMEOUT_SECONDS)
    push.stop.cancel("cancelled")
    gate.set()
    thread.join(TIMEOUT_SECONDS)
    assert [str(each) for each in stopped] == ["cancelled"]
    assert registry.manifests == {}
