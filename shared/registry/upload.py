"""The upload of one blob, with retries: reused if the repository has it, mounted from another one, or uploaded.

Source: distribution-spec 1.1, pushing blobs.
"""

import random
import threading
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import urlencode

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.registry.blobs import blob_size
from shared.registry.session import RegistrySession
from shared.registry.upload_session import Blob, UnreadableBlobError, UploadSession

MAX_ATTEMPTS = 5
"""Consecutive attempts without progress."""
MAX_WHOLE_ATTEMPTS = 2
"""Consecutive attempts without progress to send the blob as a whole, before it is sent in chunks."""
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0
"""If the registry asks for a longer delay, the whole push is retried later."""


class BlobOutcome(StrEnum):
    """How a blob came to be in a repository."""

    EXISTED = "existed"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class BlobUpload:
    """Brings one blob into one repository; for one thread."""

    def __init__(
        self,
        session: RegistrySession,
        repository_path: str,
        blob: Blob,
        *,
        mount_from: str | None = None,
        on_progress: Callable[[int], None],
        cancel_token: CancelToken,
        abandoned: threading.Event,
    ) -> None:
        """`on_progress` gets the bytes sent so far, which become fewer when an upload starts again.

        `mount_from` is another repository of the registry that may have the blob. Once `abandoned` is set, nothing is
        retried.
        """
        self._session = session
        self._path = repository_path
        self._blob = blob
        self._mount_from = mount_from if mount_from != repository_path else None
        self._cancel_token = cancel_token
        self._abandoned = abandoned
        self._scope = f"repository:{repository_path}:pull,push"
        self._upload = UploadSession(session, repository_path, blob, self._scope, on_progress)
        self._attempts = 0

    def run(self, *, check_exists: bool = True) -> BlobOutcome:
        """Bring the blob into the repository. With `check_exists` it is reused if the registry claims to have it.

        Raises:
            WorkCancelledError: cancelled.
            WorkError: it failed, also when retried; classified.
        """
        while True:
            try:
                return self._attempt(check_exists=check_exists)
            except UnreadableBlobError:
                raise
            except WorkError as error:
                self._attempts = 1 if self._upload.has_progressed else self._attempts + 1
                if self._attempts == MAX_WHOLE_ATTEMPTS:
                    self._upload.use_chunks()
                if error.error_class != ErrorClass.TRANSIENT or self._attempts >= MAX_ATTEMPTS:
                    raise
                self._wait_after(error)

    def _attempt(self, *, check_exists: bool) -> BlobOutcome:
        # If the last attempt may have completed the upload, the registry's claim to have it is believed in any case.
        may_be_committed = self._upload.may_be_committed
        if (check_exists or may_be_committed) and blob_size(
            self._session, self._path, self._blob.digest, self._scope
        ) is not None:
            return BlobOutcome.UPLOADED if may_be_committed else BlobOutcome.EXISTED
        if check_exists and not self._upload.is_open and self._mount():
            return BlobOutcome.MOUNTED
        self._upload.run()
        return BlobOutcome.UPLOADED

    def _wait_after(self, error: WorkError) -> None:
        """Wait before the next attempt, at least as long as the registry asks for.

        Raises:
            WorkError: the error, if there will be no other attempt.
        """
        delay = FIRST_DELAY_SECONDS * random.uniform(0.5, 1.0) * 2 ** (self._attempts - 1)  # noqa: S311 - no secret
        delay = max(delay, error.retry_after or 0)
        if delay > MAX_DELAY_SECONDS:
            raise error
        with self._cancel_token.on_cancel(self._abandoned.set):
            if self._abandoned.wait(delay):
                raise error

    def _mount(self) -> bool:
        """Return whether the blob was mounted from the other repository. A failed mount may have opened an upload."""
        source, self._mount_from = self._mount_from, None  # tried once, because it is only a hint
        if source is None:
            return False
        try:
            response = self._session.send(
                "POST",
                f"/v2/{self._path}/blobs/uploads/?{urlencode({'mount': self._blob.digest, 'from': source})}",
                scope=f"{self._scope} repository:{source}:pull",
                body=b"",
            )
        except WorkError as error:
            if error.error_class == ErrorClass.THROTTLED:
                raise
            return False  # no token for the other repository, or a broken connection: the blob is uploaded
        if response.status == 429:
            raise self._session.response_error(response, f"mounting a layer into {self._path}")
        if response.status == 202 and response.location:
            self._upload.open(response)
        return response.status == 201
