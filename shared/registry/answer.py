"""What a registry, or a server it sent us to, answered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin


@dataclass(frozen=True)
class Response:
    """One HTTP response, read to its end or to the limit that was set for it."""

    method: str
    url: str
    """What was asked."""
    status: int
    headers: Mapping[str, str]
    """Without regard to case; a repeated header's values are joined by a comma (RFC 9110 section 5.3)."""
    body: bytes
    complete: bool = True
    """Whether `body` is all there was."""

    @property
    def location(self) -> str:
        """Where the answer points, as an absolute URL; empty where it points nowhere or to what is no URL."""
        location = self.headers.get("Location")
        try:
            return urljoin(self.url, location) if location else ""
        except ValueError:
            return ""

    @property
    def is_html(self) -> bool:
        """Whether the body is a page for people: no registry answers so, what stands before one does."""
        return "html" in self.headers.get("Content-Type", "").lower() or self.body.lstrip()[:1] == b"<"

    def json_object(self) -> dict[str, object]:
        """The body as a JSON object; empty where it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}
