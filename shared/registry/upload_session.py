"""The sending of one blob's bytes into an upload of a registry (distribution-spec 1.1: pushing blobs).

POST, one PATCH with all of it, PUT: what every registry knows. Chunks only for one that asks for them (413, or
`OCI-Chunk-Min-Length`), for one that breaks off again and again, and to go on where a connection broke.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from shared.errors import ErrorClass, WorkError
from shared.net.http import RequestBody, Response, Timeouts
from shared.registry.blobs import TRANSFER
from shared.registry.session import RegistrySession

PIECE_BYTES = 256 * 1024
"""What is in memory of a blob, and what must get away within the limit of silence."""
CHUNK_BYTES = 16 * 1024 * 1024
MIN_CHUNK_BYTES = 1024 * 1024
COMMIT = Timeouts(connect=5.0, read=300.0, whole=None)
"""Registries look through a whole layer, or copy it, before they answer its PUT."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


class UnreadableBlobError(WorkError):
    """What is to be uploaded cannot be read where it comes from: to send it again would not help."""


@dataclass(frozen=True)
class Blob:
    """A blob to upload. `size` is in bytes; `read_from` gives a reader from an offset on."""

    digest: str
    size: int
    read_from: Callable[[int], AbstractContextManager[Callable[[int], bytes]]]
    check: Callable[[], None]
    """Called when a registry says that the content is not the digest's: raises `WorkError` if that is so."""


class UploadSession:
    """The bytes of one blob on their way, in one upload after the other until one holds; for one thread."""

    def __init__(
        self, session: RegistrySession, repository_path: str, blob: Blob, scope: str, moved: Callable[[int], None]
    ) -> None:
        """`moved` is told how many bytes the registry was sent so far; it may become less, when it starts anew."""
        self._session = session
        self._path = repository_path
        self._blob = blob
        self._scope = scope
        self._moved = moved
        self._chunk = 0
        """Bytes of a chunk; 0: all at once."""
        self._guesses = False
        """Whether it did not ask for chunks."""
        self._location: str | None = None
        """The upload that was begun."""
        self._was_sent = False
        """Whether anything was sent to it."""
        self._reached = 0
        """Bytes that the registry said to have of a broken upload."""
        self.was_committed = False
        """Whether the registry was asked to finish it, and may have done so without our hearing of it."""
        self.gained = False
        """Whether the last run found that the one before had brought it on: then going on is worth it."""

    @property
    def has_begun(self) -> bool:
        """Whether there is an upload that can be gone on with."""
        return self._location is not None

    def try_chunks(self) -> None:
        """Send no more at once than a chunk: who refuses a large body may hang up before its answer arrives."""
        if not self._chunk:
            self._chunk, self._guesses = CHUNK_BYTES, True

    def begin(self, answer: Response) -> None:
        """The registry opened an upload.

        Raises:
            WorkError: it did not say where (transient).
        """
        self._location, self._was_sent = answer.location or None, False
        least = min_chunk(answer)
        if least:
            self._chunk = max(least, CHUNK_BYTES)
        if self._location is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self._session.host} opened an upload without saying where.")

    def run(self) -> None:
        """Send what the registry does not have of it yet, and have it finished.

        Raises:
            Stopped: the stop was asked for.
            WorkError: this try did not work; classified.
        """
        offset = self._taken_up()
        if self._location is None:
            path = f"/v2/{self._path}/blobs/uploads/"
            answer = self._session.send("POST", path, scope=self._scope, body=b"")
            if answer.status != 202:
                raise self._failure(answer, "opening an upload")
            self.begin(answer)
        self._send_from(offset)
        self._commit()

    def _taken_up(self) -> int:
        """Where to go on in the upload that broke off, in bytes; it is given up unless the registry says."""
        self._moved(0)
        self.gained = False
        if self._location is None or not self._was_sent:
            return 0
        location, self._location = self._location, None
        try:
            answer = self._session.send_to("GET", location, scope=self._scope)
        except WorkError as error:
            if error.error_class == ErrorClass.THROTTLED:
                raise
            return 0
        found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
        if answer.status != 204 or found is None:
            return 0
        self._location = answer.location or location
        end = int(found[1])
        # "0-0" is said both of an upload of one byte and of an empty one: an empty one is begun from its beginning.
        offset = end + 1 if 0 < end < self._blob.size else 0
        if offset >= self._reached + PIECE_BYTES:
            self._reached, self.gained = offset, True
        return offset

    def _send_from(self, offset: int) -> None:
        while not offset or offset < self._blob.size:
            chunk = self._chunk or (self._blob.size - offset if offset else 0)
            end = min(offset + chunk, self._blob.size) if chunk else self._blob.size
            answer = self._patch(offset, end, as_chunk=bool(chunk))
            if answer.status == 413 and self._smaller_chunks():
                continue
            if answer.status not in {200, 201, 202, 204}:
                failure = self._failure(answer, "uploading a layer")
                unasked = self._guesses or (offset and not self._chunk)
                if unasked and failure.error_class == ErrorClass.INVALID:
                    # It takes no chunks, and lets no upload be taken up, so the whole is sent again.
                    failure = WorkError(ErrorClass.TRANSIENT, failure.message)
                    self._location, self._chunk, self._guesses = None, 0, False
                raise failure
            self._location = answer.location or self._location
            if end >= self._blob.size:
                return
            offset = end

    def _smaller_chunks(self) -> bool:
        """Ask for less at once, if that is still possible."""
        if self._chunk == 0:
            self._chunk = CHUNK_BYTES
        elif self._chunk > MIN_CHUNK_BYTES:
            self._chunk //= 4
        else:
            return False
        return True

    def _patch(self, start: int, end: int, *, as_chunk: bool) -> Response:
        headers = {"Content-Type": "application/octet-stream"}
        if as_chunk:
            headers["Content-Range"] = f"{start}-{max(end - 1, 0)}"
        body = RequestBody(end - start, lambda: self._pieces(start, end))
        self._was_sent = True
        return self._session.send_to(
            "PATCH", self._location or "", scope=self._scope, headers=headers, body=body, limits=TRANSFER
        )

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        self._moved(start)
        with _at_source(), self._blob.read_from(start) as read:
            while start < end:
                piece = read(min(PIECE_BYTES, end - start))
                if not piece:
                    raise WorkError(ErrorClass.TRANSIENT, f"{self._blob.digest} in the image store is cut short.")
                yield piece
                start += len(piece)
                self._moved(start)

    def _commit(self) -> None:
        location = self._location or ""
        self.was_committed = True
        joint = "&" if "?" in location else "?"
        answer = self._session.send_to(
            "PUT",
            f"{location}{joint}{urlencode({'digest': self._blob.digest})}",
            scope=self._scope,
            headers={"Content-Type": "application/octet-stream"},
            body=b"",
            limits=COMMIT,
        )
        self._location = None
        if answer.status in {200, 201, 204}:
            return
        if "DIGEST_INVALID" in answer.body.decode("utf-8", "replace"):
            with _at_source():
                self._blob.check()
            raise WorkError(ErrorClass.TRANSIENT, f"{self._session.host} received a layer damaged on its way.")
        raise self._failure(answer, "finishing the upload of a layer")

    def _failure(self, answer: Response, doing: str) -> WorkError:
        failure = self._session.failure(answer, f"{doing} to {self._path}")
        unknown = answer.status in {404, 416} and answer.method != "POST"
        # A storage behind the registry that refuses an address which the registry signed: for too long ago, mostly.
        ended = answer.status in {400, 401, 403} and not self._session.is_own(answer.url)
        if unknown or ended:
            self._location = None
            # It is begun anew, it never mends itself.
            return WorkError(ErrorClass.TRANSIENT, failure.message)
        return failure


def min_chunk(answer: Response) -> int:
    """The least bytes of a chunk that a registry takes which opened an upload; 0 where it does not say.

    Source: distribution-spec 1.1, pushing a blob in chunks (`OCI-Chunk-Min-Length`).
    """
    said = answer.headers.get("OCI-Chunk-Min-Length", "")
    return int(said) if said.isdigit() else 0


@contextmanager
def _at_source() -> Iterator[None]:
    """Whatever fails in the block is a failure of where the blob comes from."""
    try:
        yield
    except WorkError as error:
        raise UnreadableBlobError(error.error_class, error.message, retry_after=error.retry_after) from error
