"""Responses of strangers' servers, as `http.client` reads them, but strictly."""

import http.client
import re

_MAX_CHUNK_LINE_BYTES = 4096
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")


class StrictResponse(http.client.HTTPResponse):
    """A response whose chunk sizes are hexadecimal digits (RFC 9112 section 7.1).

    `http.client` takes signs too, and reads a chunk of -1 byte into memory to the end of the connection. A connection
    uses it as its `response_class`.
    """

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_CHUNK_LINE_BYTES)
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            self.close()
            raise ValueError("not the size of a chunk")  # `http.client` makes an `IncompleteRead` of it
        return int(size[1], 16)
