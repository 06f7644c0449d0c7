"""The log of a build: passed on line by line, without secrets, and no longer than it may be.

Output in chunks of bytes, made into lines of text.
"""

import codecs
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

MAX_LINE = 4000
MASK = "****"


class BuildLog:
    """Passes lines on to `write`, masks the secrets in them, and says so once when it cuts the log off.

    `limit` is in bytes of UTF-8, line ends included.
    """

    def __init__(self, write: Callable[[str], None], limit: int, secrets: Iterable[str] = ()) -> None:
        self._write = write
        self._left = limit
        self._limit = limit
        # The longest first, so that a secret within another leaves no rest of it.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def __call__(self, line: str) -> None:
        """Add one line. Lines beyond the limit are dropped."""
        line = self.masked(line)[:MAX_LINE]
        size = len(line.encode(errors="replace")) + 1
        if self._left <= 0:
            return
        if size > self._left:
            self._left = 0
            self._write(f"(the log is longer than {self._limit} bytes; the rest of it was dropped)")
            return
        self._left -= size
        self._write(line)

    def last_word(self, line: str) -> None:
        """Add the line that says why the build failed, which a cut log must have too."""
        self._write(self.masked(line)[:MAX_LINE])

    def masked(self, text: str) -> str:
        """`text` with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what begins, and how long it took if that was a second or more."""
        self(what)
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        if took >= 1:
            self(f"… done in {took:.1f} s")


def without_credentials(url: str) -> str:
    """The URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def secrets_of_url(url: str) -> list[str]:
    """What must not be shown of the URL: its user information, and its password (or lone user name) as typed."""
    user_information = urlsplit(url).netloc.rpartition("@")[0]
    if not user_information:
        return []
    user, _, password = user_information.partition(":")
    secret = password or user
    return [user_information, secret, unquote(secret)]


MAX_UNBROKEN_BYTES = 64 * 1024


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines in a stream of UTF-8 (a wrong byte becomes U+FFFD); a carriage return ends a line as well.

    An endless line is given out in pieces, so that output without line ends takes no memory.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        text = (rest + decoder.decode(chunk)).replace("\r\n", "\n")
        # A carriage return at the very end may be the first half of a line end.
        held = "\r" if text.endswith("\r") else ""
        *lines, rest = text.removesuffix(held).replace("\r", "\n").split("\n")
        rest += held
        yield from lines
        if len(rest) > MAX_UNBROKEN_BYTES:
            yield rest
            rest = ""
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest.removesuffix("\r")
