"""The upload of one blob (distribution-spec 1.1: pushing blobs): looked for, mounted, else sent; again if it broke off."""

import random
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from urllib.parse import urlencode

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.http import Response
from shared.registry.blobs import blob_size
from shared.registry.session import RegistrySession
from shared.registry.upload_session import Blob, UnreadableBlobError, UploadSession

TRIES = 5
"""In a row that brought the upload no further."""
TRIES_OF_THE_WHOLE = 2
"""In a row, before it is tried in chunks."""
FIRST_REST_SECONDS = 1.0
MAX_REST_SECONDS = 60.0
"""A registry that asks for a longer one is left alone by the whole push."""


class BlobOutcome(StrEnum):
    """How a blob came to be in a repository."""

    WAS_THERE = "was there"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class BlobUpload:
    """The way of one blob into one repository; for one thread."""

    def __init__(
        self,
        session: RegistrySession,
        repository_path: str,
        blob: Blob,
        *,
        mount_from: Sequence[str] = (),
        moved: Callable[[int], None],
        stop: CancelToken,
        given_up: threading.Event | None = None,
    ) -> None:
        """`moved` is told how many bytes the registry was sent so far; it may become less, when it starts anew.

        Once `given_up` is set, nothing is tried again.
        """
        self._session = session
        self._path = repository_path
        self._blob = blob
        self._mount_from = [repository for repository in mount_from if repository != repository_path]
        self._stop = stop
        self._given_up = given_up or threading.Event()
        self._scope = f"repository:{repository_path}:pull,push"
        self._sending = UploadSession(session, repository_path, blob, self._scope, moved)
        self._tries = 0

    def run(self, *, look: bool = True) -> BlobOutcome:
        """Bring the blob there. `look`: it may be there already, and the registry is believed to know.

        Raises:
            Stopped: the stop was asked for.
            WorkError: it did not work, also when tried again; classified.
        """
        while True:
            try:
                return self._placed(look=look)
            except UnreadableBlobError:
                raise
            except WorkError as error:
                self._tries = 1 if self._sending.gained else self._tries + 1
                if self._tries == TRIES_OF_THE_WHOLE:
                    self._sending.try_chunks()
                if error.error_class != ErrorClass.TRANSIENT or self._tries >= TRIES:
                    raise
                self._rest(error)

    def _placed(self, *, look: bool) -> BlobOutcome:
        # What we were about to finish ourselves may be believed to be there, whoever else lies about it.
        was_committed = self._sending.was_committed
        if (look or was_committed) and self._is_there():
            return BlobOutcome.UPLOADED if was_committed else BlobOutcome.WAS_THERE
        if look and not self._sending.has_begun and self._is_mounted():
            return BlobOutcome.MOUNTED
        self._sending.run()
        return BlobOutcome.UPLOADED

    def _is_there(self) -> bool:
        return blob_size(self._session, self._path, self._blob.digest, self._scope) is not None

    def _rest(self, error: WorkError) -> None:
        """Wait before the next try, as long as the registry asks for; or give up, where nobody waits for this any more.

        Raises:
            WorkError: the error, where there will be no other try.
        """
        spread = FIRST_REST_SECONDS * random.uniform(0.5, 1.0) * 2 ** (self._tries - 1)  # noqa: S311 - no secret
        seconds = max(spread, error.retry_after or 0)
        if seconds > MAX_REST_SECONDS:
            raise error
        with self._stop.interrupting(self._given_up.set):
            if self._given_up.wait(seconds):
                raise error

    def _is_mounted(self) -> bool:
        """Whether another repository of the registry lent its blob; a mount that failed may have begun an upload."""
        mount_from, self._mount_from = self._mount_from, []  # asked for once: it is no more than a hint
        for repository in mount_from:
            try:
                answer = self._asked_to_mount(repository)
            except WorkError as error:
                if error.error_class == ErrorClass.THROTTLED:
                    raise
                continue  # no token for that one, or it broke off: the blob is sent
            if answer.status == 201:
                return True
            if answer.status == 202 and answer.location:
                self._sending.begin(answer)
                return False
            if answer.status == 429:
                raise self._session.failure(answer, f"mounting a layer into {self._path}")
        return False

    def _asked_to_mount(self, repository: str) -> Response:
        path = f"/v2/{self._path}/blobs/uploads/?{urlencode({'mount': self._blob.digest, 'from': repository})}"
        return self._session.send("POST", path, scope=f"{self._scope} repository:{repository}:pull", body=b"")
