"""What all steps of a build share: log, limits, deadline, cancellation, and locks with other builds on the machine."""

import codecs
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shared.cancellation import CancelToken, Deadline
from shared.file_lock import poll_file_lock
from shared.plain_text import plain_text

MAX_LINE = 4000
MAX_PARTIAL_LINE = 64 * 1024
"""Characters after which a line that has not ended is returned in pieces."""
MASK = "****"


class BuildLog:
    """Passes lines on to `write`, with secrets masked, up to `limit` bytes of UTF-8 including line ends."""

    def __init__(self, write: Callable[[str], None], limit: int, secrets: Iterable[str] = ()) -> None:
        self._write = write
        self._left = self._limit = limit
        # The longest first, so that nothing remains of a secret that has another in it.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def __call__(self, line: str) -> None:
        """Add one line. Lines beyond the limit are dropped, and the log says so once."""
        line = self.masked(line)[:MAX_LINE]
        size = len(line.encode(errors="replace")) + 1
        if size <= self._left:
            self._left -= size
            self._write(line)
        elif self._left > 0:
            self._left = 0
            self._write(f"(the log is longer than {self._limit} bytes; the rest of it was dropped)")

    def add_failure(self, line: str) -> None:
        """Add the cause of a failed build, even to a log that has reached its limit."""
        self._write(self.masked(line)[:MAX_LINE])

    def masked(self, text: str) -> str:
        """Return a text without control characters and secrets."""
        text = plain_text(text)  # first, because an invisible character could split a secret
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Add the title of a step, and at its end its duration if that is a second or more."""
        self(title)
        started_at = time.monotonic()
        yield
        seconds = time.monotonic() - started_at
        if seconds >= 1:
            self(f"… done in {seconds:.1f} s")


def without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def url_secrets(url: str) -> list[str]:
    """Return the URL's user information, and its password (or sole user name) both encoded and decoded."""
    user_information = urlsplit(url).netloc.rpartition("@")[0]
    if not user_information:
        return []
    user, _, password = user_information.partition(":")
    secret = password or user
    return [user_information, secret, unquote(secret)]


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of UTF-8; a carriage return ends a line as well, an invalid byte becomes U+FFFD.

    An endless line is yielded in pieces, so that output without line ends takes no memory.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        text = (rest + decoder.decode(chunk)).replace("\r\n", "\n")
        # A carriage return at the very end may be the first half of a line end.
        pending = "\r" if text.endswith("\r") else ""
        *lines, rest = text.removesuffix(pending).replace("\r", "\n").split("\n")
        rest += pending
        yield from lines
        if len(rest) > MAX_PARTIAL_LINE:
            yield rest
            rest = ""
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest.removesuffix("\r")


@dataclass(frozen=True)
class BuildLimits:
    """Limits of one build: memory in bytes, CPUs in cores, processes, wall time in seconds, log in bytes.

    `disk_bytes` and `files` limit what it has on the engine's disk, and what becomes a layer.
    """

    memory_bytes: int
    cpus: float
    pids: int
    seconds: float
    log_bytes: int
    disk_bytes: int = 16 * 1024 * 1024 * 1024
    files: int = 1_000_000


@dataclass(frozen=True)
class BuildContext:
    """The log of one build, its cancel token, its deadline, and the locks that builds on this machine share."""

    log: BuildLog
    stop: CancelToken
    deadline: Deadline
    lock_directory: Path

    def check(self) -> None:
        """Raise if the build must end.

        Raises:
            WorkCancelledError: the build was cancelled.
            WorkError: its time is used up (invalid).
        """
        self.stop.check()
        self.deadline.check()

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold the lock of `key` among the builds on this machine. Raises as `check` while another build holds it."""
        with poll_file_lock(
            [self.lock_directory / f"{key}.lock"],
            self.check,
            on_wait=lambda: self.log("Another build is making the same: waiting for it"),
        ):
            yield
