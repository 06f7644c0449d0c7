"""Responses of servers that are not trusted: strictly parsed, and with a limit for JSON."""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

MAX_JSON_BYTES = 256 * 1024

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_CHUNK_LINE_BYTES = 4096
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")


@dataclass(frozen=True)
class Response:
    """One HTTP response, read to its end or to the size limit."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    """Case-insensitive; the values of a repeated header are joined by a comma (RFC 9110 section 5.3)."""
    body: bytes
    complete: bool = True

    @property
    def is_redirect(self) -> bool:
        return self.status in _REDIRECTS

    @property
    def location(self) -> str:
        """The `Location` header as an absolute URL; empty if there is none or it is invalid."""
        location = self.headers.get("Location")
        try:
            return urljoin(self.url, location) if location else ""
        except ValueError:
            return ""

    @property
    def is_html(self) -> bool:
        """Whether the body is an HTML page: a gateway or a website sends those, a registry does not."""
        return "html" in self.headers.get("Content-Type", "").lower() or self.body.lstrip()[:1] == b"<"

    def json_object(self) -> dict[str, object]:
        """Return the body as a JSON object; empty if it is something else, or large: errors and tokens are small."""
        if len(self.body) > MAX_JSON_BYTES:
            return {}
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


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
            raise ValueError("invalid size of a chunk")  # `http.client` makes an `IncompleteRead` of it
        return int(size[1], 16)
