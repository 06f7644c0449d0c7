"""Output in chunks of bytes, made into lines of text."""

import codecs
from collections.abc import Iterable, Iterator

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
