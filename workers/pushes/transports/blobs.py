"""Concurrent uploads of the blobs of one push, and their progress."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager

import structlog

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.pushes.progress import BlobProgress, Progress
from shared.registry.client import RegistryClient
from shared.registry.upload import BlobOutcome, BlobUpload
from shared.registry.upload_session import Blob
from workers.images.image_store import StoreUse
from workers.images.oci import Descriptor, Manifest

log = structlog.get_logger(__name__)

MIN_REPORT_INTERVAL_SECONDS = 0.1


class BlobUploads:
    """Upload all blobs of an image to a repository, the largest first, so that none of them is left for the end."""

    def __init__(
        self,
        client: RegistryClient,
        repository_path: str,
        manifest: Manifest,
        store: StoreUse,
        *,
        mount_from: Mapping[str, str],
        max_concurrent: int,
        slot: Callable[[Callable[[], None]], AbstractContextManager[None]],
        on_progress: Callable[[Progress, str], None],
        stop: CancelToken,
    ) -> None:
        """`slot` holds one of the slots that all uploads to the registry share; it is given a check for the wait."""
        self._client = client
        self._path = repository_path
        self._store = store
        self._descriptors = sorted(manifest.blobs, key=lambda blob: blob.size, reverse=True)
        self._mount_from = mount_from
        self._max_concurrent = min(max_concurrent, len(self._descriptors))
        self._slot = slot
        self._stop = stop
        self._progress = UploadProgress(manifest, on_progress)
        self._given_up = threading.Event()
        self.outcomes: dict[str, BlobOutcome] = {}

    def run(self, *, check_exists: bool) -> None:
        """Upload the blobs that the repository does not have.

        With `check_exists` the registry is asked which it has; without, every blob is sent that was not sent before.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: an upload failed; the others were given up.

        """
        pending = iter([each for each in self._descriptors if self.outcomes.get(each.digest) != BlobOutcome.UPLOADED])
        lock = threading.Lock()

        def upload_pending(client: RegistryClient) -> None:
            while not self._given_up.is_set():
                with lock:
                    descriptor = next(pending, None)
                if descriptor is None:
                    return
                self._upload(client, descriptor, check_exists=check_exists)

        with ExitStack() as opened:
            clients = [opened.enter_context(self._client.clone()) for _ in range(self._max_concurrent)]
            errors = self._run_in_threads(clients, upload_pending)
        self._stop.check()
        # Preferably not a transient error, which a closed connection may have caused.
        for error in sorted(errors, key=lambda each: isinstance(each, WorkError) and each.error_class == "transient"):
            raise error

    def _run_in_threads(
        self, clients: list[RegistryClient], upload_pending: Callable[[RegistryClient], None]
    ) -> list[BaseException]:
        """Run a thread for each client; return their errors. After a failure the others are given up."""
        with ThreadPoolExecutor(self._max_concurrent, thread_name_prefix="upload") as pool:
            running = [pool.submit(upload_pending, client) for client in clients]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                errors = [error for each in done if (error := each.exception()) is not None]
            except BaseException:
                self._give_up(clients)
                raise
            if any(isinstance(each, WorkError) and each.error_class == ErrorClass.THROTTLED for each in errors):
                # Uploads that have begun may end: a registry that throttles wants fewer requests, not the same bytes
                # again.
                self._given_up.set()
            elif errors:
                self._give_up(clients)
        return errors

    def _give_up(self, clients: list[RegistryClient]) -> None:
        self._given_up.set()
        for client in clients:
            client.abort()

    def _upload(self, client: RegistryClient, descriptor: Descriptor, *, check_exists: bool) -> None:
        upload = BlobUpload(
            client,
            self._path,
            self._blob(descriptor),
            mount_from=self._mount_from.get(descriptor.digest),
            on_progress=lambda sent: self._progress.set_sent(descriptor, sent),
            cancel_token=self._stop,
            abandoned=self._given_up,
        )
        with self._slot(self._check_not_given_up):
            outcome = upload.run(check_exists=check_exists)
        self.outcomes[descriptor.digest] = outcome
        self._progress.set_done(descriptor, outcome)
        log.info(
            "blob_done",
            outcome=outcome,
            digest=descriptor.digest,
            media_type=descriptor.media_type,
            bytes=descriptor.size,
            repository=self._path,
        )

    def _check_not_given_up(self) -> None:
        self._stop.check()
        if self._given_up.is_set():
            raise WorkError(ErrorClass.TRANSIENT, "Another layer of the image could not be uploaded.")

    def _blob(self, descriptor: Descriptor) -> Blob:
        @contextmanager
        def read_from(offset: int) -> Iterator[Callable[[int], bytes]]:
            with self._store.open(descriptor.digest, offset) as reader:
                yield reader.read

        return Blob(descriptor.digest, descriptor.size, read_from, lambda: self._verify(descriptor.digest))

    def _verify(self, digest: str) -> None:
        """Check the content of a blob in the store.

        Raises:
            WorkError: the blob is damaged; it is removed from the store (transient).

        """
        sha256 = hashlib.sha256()
        with self._store.open(digest) as reader:
            while piece := reader.read(1024 * 1024):
                sha256.update(piece)
        if digest != f"sha256:{sha256.hexdigest()}":
            self._store.forget(digest)
            raise WorkError(
                ErrorClass.TRANSIENT, f"The image store's {digest} was damaged; the next attempt makes it again."
            )


class UploadProgress:
    """Sum up the progress of all uploads of one push, and report it at most every 0.1 seconds."""

    def __init__(self, manifest: Manifest, on_progress: Callable[[Progress, str], None]) -> None:
        layers = {layer.digest for layer in manifest.layers}
        self._blobs = {
            blob.digest: BlobProgress(total_bytes=blob.size, is_layer=blob.digest in layers) for blob in manifest.blobs
        }
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._reported_at = 0.0

    def set_sent(self, blob: Descriptor, sent_bytes: int) -> None:
        with self._lock:
            self._blobs[blob.digest].done_bytes = sent_bytes
            if time.monotonic() - self._reported_at >= MIN_REPORT_INTERVAL_SECONDS:
                self._report()

    def set_done(self, blob: Descriptor, outcome: BlobOutcome) -> None:
        with self._lock:
            progress = self._blobs[blob.digest]
            if outcome is not BlobOutcome.UPLOADED:
                progress.total_bytes = 0
            progress.done_bytes, progress.is_done = progress.total_bytes, True
            self._report()

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        progress = Progress.of(self._blobs.values())
        self._on_progress(progress, f"Uploads: {progress.layers_done} of {progress.layers_total} layers are there.")
