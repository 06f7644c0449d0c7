"""OCI documents: media types, descriptors and image manifests (image-spec 1.1; Docker's manifest v2 schema 2)."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from shared.numbers import whole_number

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

DOCKER_OF_OCI = {
    OCI_MANIFEST: DOCKER_MANIFEST,
    OCI_CONFIG: DOCKER_CONFIG,
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
}
"""Docker's media types for the same bytes; other OCI media types have none."""
OCI_OF_DOCKER = {docker: oci for oci, docker in DOCKER_OF_OCI.items()}

MAX_LAYERS = 1000
"""The Docker engine runs images of at most 127 layers; other tools make more."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidManifestError(ValueError):
    """Raised for an invalid manifest, configuration or index; the text is a sentence."""


@dataclass(frozen=True)
class Descriptor:
    """A blob of an image. `size` is in bytes; only SHA-256 digests are used here."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Descriptor":
        return cls(media_type, digest_of(content), len(content))

    @classmethod
    def parse(cls, document: object) -> "Descriptor":
        """Read a descriptor in a manifest or an index.

        Raises:
            InvalidManifestError: it is invalid, or its digest is not SHA-256.

        """
        if not isinstance(document, dict):
            raise InvalidManifestError("a descriptor is no JSON object")
        media_type, digest, size = (document.get(key) for key in ("mediaType", "digest", "size"))
        if not isinstance(media_type, str) or not isinstance(digest, str):
            raise InvalidManifestError("a descriptor lacks its media type or digest")
        if not isinstance(size, int) or whole_number(size) is None:
            raise InvalidManifestError("a descriptor has no size in bytes")
        if not is_sha256(digest):
            raise InvalidManifestError(f"a descriptor has the digest {digest[:80]!r}, which is no SHA-256")
        return cls(media_type, digest, size, _annotations(document, "a descriptor"))

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return document


def _annotations(document: Mapping[str, Any], owner: str) -> dict[str, str]:
    annotations = document.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise InvalidManifestError(f"{owner}'s annotations are no JSON object")
    return {str(key): str(value) for key, value in annotations.items()}


def digest_of(content: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_sha256(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class Manifest:
    """The manifest of an image for one platform. Its media types are either all OCI's or all Docker's."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    """The lowest first."""
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)
    as_read: bytes | None = field(default=None, repr=False)
    """The bytes that were parsed: a manifest that has a digest is never serialized again."""

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """Parse a manifest.

        Raises:
            InvalidManifestError: it is no image manifest (an index is none), or mixes media types of OCI and Docker.

        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise InvalidManifestError("a manifest is no JSON") from None
        if not isinstance(document, dict) or document.get("schemaVersion") != 2:
            raise InvalidManifestError("a manifest is not of schema version 2")
        layers = document.get("layers")
        if not isinstance(layers, list):
            raise InvalidManifestError("a manifest has no list of layers")
        if len(layers) > MAX_LAYERS:
            raise InvalidManifestError(f"a manifest has more than {MAX_LAYERS} layers")
        config = Descriptor.parse(document.get("config"))
        media_type = document.get("mediaType") or (
            DOCKER_MANIFEST if config.media_type in OCI_OF_DOCKER else OCI_MANIFEST
        )
        if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):  # no set: it need not be hashable
            raise InvalidManifestError(f"{str(media_type)[:100]!r} is no image manifest")
        annotations = _annotations(document, "a manifest")
        manifest = cls(config, tuple(Descriptor.parse(layer) for layer in layers), media_type, annotations, content)
        others = OCI_OF_DOCKER if media_type == OCI_MANIFEST else DOCKER_OF_OCI
        if any(blob.media_type in others for blob in manifest.blobs):
            raise InvalidManifestError("a manifest mixes the media types of OCI and Docker")
        return manifest

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that a registry needs before the manifest: the configuration and each layer once."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())

    @cached_property
    def content(self) -> bytes:
        """The bytes that were parsed, or else compact JSON with a fixed order of keys."""
        if self.as_read is not None:
            return self.as_read
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    @cached_property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(self.content, self.media_type)

    def to_docker_schema2(self) -> "Manifest":
        """Return the manifest with Docker's media types: another digest, the same blobs.

        Raises:
            InvalidManifestError: Docker has no equivalent for the media type of a blob.

        """
        return self._with_media_types(DOCKER_OF_OCI, DOCKER_MANIFEST)

    def to_oci(self) -> "Manifest":
        """Return the manifest with OCI's media types: another digest, the same blobs.

        Raises:
            InvalidManifestError: OCI has no equivalent for the media type of a blob.

        """
        return self._with_media_types(OCI_OF_DOCKER, OCI_MANIFEST)

    def _with_media_types(self, equivalents: Mapping[str, str], media_type: str) -> "Manifest":
        if self.media_type == media_type:
            return self
        # Docker's manifests have no annotations, neither their own nor those of blobs.
        return Manifest(
            _with_media_type(self.config, equivalents),
            tuple(_with_media_type(layer, equivalents) for layer in self.layers),
            media_type,
            self.annotations if media_type == OCI_MANIFEST else {},
        )


def _with_media_type(blob: Descriptor, equivalents: Mapping[str, str]) -> Descriptor:
    media_type = equivalents.get(blob.media_type)
    if media_type is None:
        raise InvalidManifestError(f"the media type {blob.media_type[:100]!r} of a blob has no equivalent")
    return replace(blob, media_type=media_type, annotations={})
