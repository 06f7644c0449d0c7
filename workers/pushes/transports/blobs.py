"""The blobs of one push, several at once, and how far they are.

How far the blobs of one push are, told not too often.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager

import structlog

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.registry.client import RegistryClient
from shared.registry.upload import BlobOutcome, BlobUpload
from shared.registry.upload_session import Blob
from workers.images.image_store import StoreUse
from workers.images.oci import Descriptor, Manifest
from workers.pushes.transports.transport import PushProgress

log = structlog.get_logger(__name__)


class BlobUploads:
    """Brings every blob of an image into a repository. The largest begin first, so that none is waited for alone."""

    def __init__(
        self,
        client: RegistryClient,
        repository_path: str,
        manifest: Manifest,
        blobs: StoreUse,
        *,
        mount_from: Mapping[str, str],
        at_once: int,
        slot: Callable[[Callable[[], None]], AbstractContextManager[None]],
        on_progress: Callable[[PushProgress, str], None],
        stop: CancelToken,
    ) -> None:
        """`slot` gives a place among all uploads to the registry; it is given what to wait with."""
        self._client = client
        self._path = repository_path
        self._blobs = blobs
        self._descriptors = sorted(manifest.blobs, key=lambda blob: blob.size, reverse=True)
        self._mount_from = mount_from
        self._at_once = min(at_once, len(self._descriptors))
        self._slot = slot
        self._stop = stop
        self._tally = Tally(manifest, on_progress)
        self._given_up = threading.Event()
        self.placed: dict[str, BlobOutcome] = {}
        """How each blob came there, by digest."""

    def run(self, *, look: bool) -> None:
        """Upload what is not there; with `look` the registry is asked for each whether it is.

        Without, everything is sent that this has not sent itself.

        Raises:
            Stopped: the stop was asked for.
            WorkError: the first blob that did not work, classified; the others are given up then.
        """
        wanted = iter([each for each in self._descriptors if self.placed.get(each.digest) != BlobOutcome.UPLOADED])
        sessions = [self._client.clone() for _ in range(self._at_once)]
        lock = threading.Lock()

        def work(session: RegistryClient) -> None:
            while not self._given_up.is_set():
                with lock:
                    descriptor = next(wanted, None)
                if descriptor is None:
                    return
                self._upload(session, descriptor, look=look)

        try:
            failed = self._all_done(sessions, work)
        finally:
            for session in sessions:
                session.close()
        self._stop.check()
        _raise_first(failed)

    def _all_done(self, sessions: list[RegistryClient], work: Callable[[RegistryClient], None]) -> list[Future[None]]:
        """Wait for all; once one has failed, or whatever else ends the waiting, the others are given up."""
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="upload") as pool:
            running = [pool.submit(work, session) for session in sessions]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                failed = [each for each in done if each.exception() is not None]
            except BaseException:
                self._give_up(sessions)
                raise
            if failed and not any(_is_throttled(each) for each in failed):
                self._give_up(sessions)
            elif failed:
                # What is under way may end: the registry asked for less at once, not to have sent it for nothing.
                self._given_up.set()
        return failed

    def _give_up(self, sessions: list[RegistryClient]) -> None:
        self._given_up.set()
        for session in sessions:
            session.abort()

    def _upload(self, session: RegistryClient, descriptor: Descriptor, *, look: bool) -> None:
        upload = BlobUpload(
            session,
            self._path,
            self._blob(descriptor),
            mount_from=self._mount_from.get(descriptor.digest),
            on_progress=lambda sent: self._tally.advance(descriptor, sent),
            cancel_token=self._stop,
            abandoned=self._given_up,
        )
        with self._slot(self._check_not_given_up):
            placed = upload.run(check_exists=look)
        self.placed[descriptor.digest] = placed
        self._tally.ended(descriptor, placed)
        log.info(
            "blob",
            how=placed,
            digest=descriptor.digest,
            kind=descriptor.media_type,
            bytes=descriptor.size,
            to=self._path,
        )

    def _check_not_given_up(self) -> None:
        self._stop.check()
        if self._given_up.is_set():
            raise WorkError(ErrorClass.TRANSIENT, "Another layer of the image could not be uploaded.")

    def _blob(self, descriptor: Descriptor) -> Blob:
        @contextmanager
        def read_from(offset: int) -> Iterator[Callable[[int], bytes]]:
            with self._blobs.open(descriptor.digest, offset) as reader:
                yield reader.read

        return Blob(descriptor.digest, descriptor.size, read_from, lambda: self._check(descriptor.digest))

    def _check(self, digest: str) -> None:
        hashed = hashlib.sha256()
        with self._blobs.open(digest) as reader:
            while piece := reader.read(1024 * 1024):
                hashed.update(piece)
        if digest != f"sha256:{hashed.hexdigest()}":
            self._blobs.forget(digest)
            raise WorkError(
                ErrorClass.TRANSIENT, f"The image store's {digest} was damaged; the next try makes it again."
            )


def _is_throttled(each: Future[None]) -> bool:
    error = each.exception()
    return isinstance(error, WorkError) and error.error_class == ErrorClass.THROTTLED


def _raise_first(failed: list[Future[None]]) -> None:
    """Raise what made the others give up: an error of its own, rather than that of a connection that was shut."""
    errors = [error for each in failed if (error := each.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, WorkError) and error.error_class == "transient"):
        raise error


SHOWN_SECONDS = 0.1
"""How often progress is told at most."""


class Tally:
    """How far the blobs of one push are. A layer that was there counts as done, without its bytes."""

    def __init__(self, manifest: Manifest, on_progress: Callable[[PushProgress, str], None]) -> None:
        self._lock = threading.Lock()
        self._on_progress = on_progress
        self._layers = {layer.digest for layer in manifest.layers}
        self._sent = dict.fromkeys((blob.digest for blob in manifest.blobs), 0)
        self._sizes = {blob.digest: blob.size for blob in manifest.blobs}
        self._ended: set[str] = set()
        self._shown_at = 0.0

    def advance(self, blob: Descriptor, sent: int) -> None:
        """So many bytes of a blob were sent."""
        with self._lock:
            self._sent[blob.digest] = sent
            if time.monotonic() - self._shown_at >= SHOWN_SECONDS:
                self._show()

    def ended(self, blob: Descriptor, placed: BlobOutcome) -> None:
        """A blob is there."""
        with self._lock:
            if placed is not BlobOutcome.UPLOADED:
                self._sizes[blob.digest] = 0
            self._sent[blob.digest] = self._sizes[blob.digest]
            self._ended.add(blob.digest)
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        done, layers = len(self._ended & self._layers), len(self._layers)
        self._on_progress(
            PushProgress(sum(self._sent.values()), sum(self._sizes.values()), done, layers),
            f"Uploads: {done} of {layers} layers are there.",
        )
