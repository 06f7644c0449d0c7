"""How far the blobs of one push are, told not too often."""

import threading
import time
from collections.abc import Callable

from shared.registry.upload import BlobOutcome
from workers.oci.descriptor import Descriptor
from workers.oci.manifest import Manifest
from workers.transports.transport import PushProgress

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

    def moved(self, blob: Descriptor, sent: int) -> None:
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
