"""What a blob is known by: its media type, digest and size (image-spec 1.1: descriptor)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidManifestError(ValueError):  # noqa: N818 - reads as what it says
    """A manifest, configuration or index that says what it may not; the text is a sentence."""


@dataclass(frozen=True)
class Descriptor:
    """A blob of an image. `size` is in bytes; only SHA-256 digests are used here."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Descriptor":
        """The descriptor of a content that is in memory."""
        return cls(media_type, digest_of(content), len(content))

    @classmethod
    def parse(cls, document: object) -> "Descriptor":
        """Read a descriptor out of a manifest or an index.

        Raises:
            InvalidManifestError: it is none, or one with a digest that is not used here.
        """
        if not isinstance(document, dict):
            raise InvalidManifestError("a descriptor is no JSON object")
        media_type, digest, size = (document.get(key) for key in ("mediaType", "digest", "size"))
        if not isinstance(media_type, str) or not isinstance(digest, str) or not isinstance(size, int) or size < 0:
            raise InvalidManifestError("a descriptor lacks its media type, digest or size")
        if not is_sha256(digest):
            raise InvalidManifestError(f"a descriptor has the digest {digest[:80]!r}, which is no SHA-256")
        annotations = document.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise InvalidManifestError("a descriptor's annotations are no JSON object")
        return cls(media_type, digest, size, {str(key): str(value) for key, value in annotations.items()})

    def document(self) -> dict[str, Any]:
        """The descriptor as it stands in a manifest or an index."""
        said: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            said["annotations"] = dict(sorted(self.annotations.items()))
        return said


def digest_of(content: bytes) -> str:
    """The SHA-256 digest of a content, as descriptors write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_sha256(text: str) -> bool:
    """Whether `text` is a SHA-256 digest as descriptors write it."""
    return _DIGEST.fullmatch(text) is not None
