"""Upload sessions of a registry: send the bytes of one blob (distribution-spec 1.1: pushing blobs).

POST, one PATCH with the whole blob, PUT: every registry supports that. Chunks are used if the registry asks for them
(413, or `OCI-Chunk-Min-Length`), if it breaks off repeatedly, and to resume a broken upload.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from shared.errors import ErrorClass, WorkError
from shared.net.http import PIECE_BYTES, RequestBody, Timeouts
from shared.net.responses import Response
from shared.numbers import whole_number
from shared.registry.blobs import TRANSFER_TIMEOUTS
from shared.registry.session import RegistrySession

CHUNK_BYTES = 16 * 1024 * 1024
MIN_CHUNK_BYTES = 1024 * 1024
COMMIT_TIMEOUTS = Timeouts(connect=5.0, read=300.0, total=None)
"""Registries verify or copy a whole layer before they answer its PUT."""

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]+)")


class UnreadableBlobError(WorkError):
    """Raised when the blob cannot be read at its source. A retry would not help."""


@dataclass(frozen=True)
class Blob:
    """A blob to upload; `size` is in bytes."""

    digest: str
    size: int
    read_from: Callable[[int], AbstractContextManager[Callable[[int], bytes]]]
    """Opens the blob at an offset and returns a reader."""
    check: Callable[[], None]
    """Raises `WorkError` if the content does not match the digest. Called when a registry reports that."""


class UploadSession:
    """Sends the bytes of one blob, in one upload session after another until one succeeds; for one thread."""

    def __init__(
        self, session: RegistrySession, repository_path: str, blob: Blob, scope: str, on_progress: Callable[[int], None]
    ) -> None:
        """`on_progress` gets the bytes sent so far, which become fewer when an upload starts again."""
        self._session = session
        self._path = repository_path
        self._blob = blob
        self._scope = scope
        self._on_progress = on_progress
        self._chunk_bytes = 0
        """0: the whole blob in one request."""
        self._chunks_are_a_guess = False
        """Whether chunks are used although the registry did not ask for them."""
        self._location: str | None = None
        self._was_sent_to = False
        """Whether any content was sent to the open upload session."""
        self._received_bytes = 0
        """Bytes that the registry reported to have of a broken upload."""
        self.may_be_committed = False
        """Whether the registry was asked to complete the upload. It may have done so although no response arrived."""
        self.has_progressed = False
        """Whether the last run found that the run before had brought the upload forward, so that a retry helps."""

    @property
    def is_open(self) -> bool:
        return self._location is not None

    def use_chunks(self) -> None:
        """Send chunks: a registry that refuses a large body may close the connection before its response arrives."""
        if not self._chunk_bytes:
            self._chunk_bytes, self._chunks_are_a_guess = CHUNK_BYTES, True

    def open(self, response: Response) -> None:
        """Use the upload session that the registry opened with this response.

        Raises:
            WorkError: the response has no location (transient).
        """
        self._location, self._was_sent_to = response.location or None, False
        min_bytes = min_chunk_bytes(response)
        if min_bytes:
            self._chunk_bytes = max(min_bytes, CHUNK_BYTES)
        if self._location is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self._session.host} opened an upload without a location.")

    def run(self) -> None:
        """Send the bytes that the registry does not have yet, and complete the upload.

        Raises:
            WorkCancelledError: cancelled.
            WorkError: this attempt failed; classified.
        """
        offset = self._resume()
        if self._location is None:
            response = self._session.send("POST", f"/v2/{self._path}/blobs/uploads/", scope=self._scope, body=b"")
            if response.status != 202:
                raise self._response_error(response, "opening an upload")
            self.open(response)
        self._send_from(offset)
        self._commit()

    def _resume(self) -> int:
        """Return the offset (bytes) at which the broken upload continues. It is abandoned if the registry has none."""
        self._on_progress(0)
        self.has_progressed = False
        if self._location is None or not self._was_sent_to:
            return 0
        location, self._location = self._location, None
        try:
            response = self._session.send_to("GET", location, scope=self._scope)
        except WorkError as error:
            if error.error_class == ErrorClass.THROTTLED:
                raise
            return 0
        received = _RANGE.fullmatch(response.headers.get("Range", "").strip())
        end = whole_number(received[1]) if received is not None else None
        if response.status != 204 or end is None:
            return 0
        self._location = response.location or location
        # "0-0" can mean one byte or an empty upload: such an upload is sent from its beginning.
        offset = end + 1 if 0 < end < self._blob.size else 0
        if offset >= self._received_bytes + PIECE_BYTES:
            self._received_bytes, self.has_progressed = offset, True
        return offset

    def _send_from(self, offset: int) -> None:
        while not offset or offset < self._blob.size:
            chunk_bytes = self._chunk_bytes or (self._blob.size - offset if offset else 0)
            end = min(offset + chunk_bytes, self._blob.size) if chunk_bytes else self._blob.size
            response = self._patch(offset, end, as_chunk=bool(chunk_bytes))
            if response.status == 413 and self._shrink_chunks():
                continue
            if response.status not in {200, 201, 202, 204}:
                error = self._response_error(response, "uploading a layer")
                is_guess = self._chunks_are_a_guess or (offset and not self._chunk_bytes)
                if is_guess and error.error_class == ErrorClass.INVALID:
                    # The registry supports neither chunks nor resuming, so the whole blob is sent again.
                    error = WorkError(ErrorClass.TRANSIENT, error.message)
                    self._location, self._chunk_bytes, self._chunks_are_a_guess = None, 0, False
                raise error
            self._location = response.location or self._location
            if end >= self._blob.size:
                return
            offset = end

    def _shrink_chunks(self) -> bool:
        if self._chunk_bytes == 0:
            self._chunk_bytes = CHUNK_BYTES
        elif self._chunk_bytes > MIN_CHUNK_BYTES:
            self._chunk_bytes //= 4
        else:
            return False
        return True

    def _patch(self, start: int, end: int, *, as_chunk: bool) -> Response:
        headers = {"Content-Type": "application/octet-stream"}
        if as_chunk:
            headers["Content-Range"] = f"{start}-{max(end - 1, 0)}"
        body = RequestBody(end - start, lambda: self._pieces(start, end))
        self._was_sent_to = True
        return self._session.send_to(
            "PATCH", self._location or "", scope=self._scope, headers=headers, body=body, timeouts=TRANSFER_TIMEOUTS
        )

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        self._on_progress(start)
        with _reading_source(), self._blob.read_from(start) as read:
            while start < end:
                piece = read(min(PIECE_BYTES, end - start))
                if not piece:
                    raise WorkError(ErrorClass.TRANSIENT, f"{self._blob.digest} in the image store is incomplete.")
                yield piece
                start += len(piece)
                self._on_progress(start)

    def _commit(self) -> None:
        location = self._location or ""
        self.may_be_committed = True
        separator = "&" if "?" in location else "?"
        response = self._session.send_to(
            "PUT",
            f"{location}{separator}{urlencode({'digest': self._blob.digest})}",
            scope=self._scope,
            headers={"Content-Type": "application/octet-stream"},
            body=b"",
            timeouts=COMMIT_TIMEOUTS,
        )
        self._location = None
        if response.status in {200, 201, 204}:
            return
        if "DIGEST_INVALID" in response.body.decode("utf-8", "replace"):
            with _reading_source():
                self._blob.check()
            raise WorkError(ErrorClass.TRANSIENT, f"{self._session.host} received a layer that was damaged in transit.")
        raise self._response_error(response, "completing the upload of a layer")

    def _response_error(self, response: Response, action: str) -> WorkError:
        error = self._session.response_error(response, f"{action} to {self._path}")
        is_unknown = response.status in {404, 416} and response.method != "POST"
        # A storage behind the registry refuses a URL that the registry signed: usually the signature has expired.
        is_expired = response.status in {400, 401, 403} and not self._session.is_own_url(response.url)
        if is_unknown or is_expired:
            self._location = None  # only a new upload session can succeed
            return WorkError(ErrorClass.TRANSIENT, error.message)
        return error


def min_chunk_bytes(response: Response) -> int:
    """Return the smallest chunk (bytes) that the registry accepts in the upload session it opened; 0: any size.

    Source: distribution-spec 1.1, pushing a blob in chunks (`OCI-Chunk-Min-Length`).
    """
    return whole_number(response.headers.get("OCI-Chunk-Min-Length")) or 0


@contextmanager
def _reading_source() -> Iterator[None]:
    try:
        yield
    except WorkError as error:
        raise UnreadableBlobError(error.error_class, error.message, retry_after=error.retry_after) from error
