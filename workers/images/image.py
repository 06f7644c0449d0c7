"""Images of the store: read them, add them, derive one from another (image-spec 1.1: image configuration)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import ErrorClass, WorkError
from workers.images.image_store import StoreUse
from workers.images.layers import Layer
from workers.images.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, InvalidManifestError, Manifest

CREATED = "1980-01-02T00:00:00Z"
"""The one time of making, as that of the files: what is put together from the same parts has the same digest."""
_MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_KEPT_FROM_BASE = ("architecture", "os", "variant", "os.version", "os.features")


@dataclass(frozen=True)
class Image:
    """An image that the store has, with its configuration as a document."""

    manifest: Manifest
    configuration: Mapping[str, Any]

    @property
    def run_config(self) -> dict[str, Any]:
        """What a container of it is started with (the configuration's `config`)."""
        return dict(self.configuration.get("config") or {})

    @property
    def platform(self) -> str:
        """As `linux/amd64` or `linux/arm/v7`."""
        return "/".join(
            self.configuration[key] for key in ("os", "architecture", "variant") if self.configuration.get(key)
        )

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that it sets."""
        entries = (entry.partition("=") for entry in self.run_config.get("Env") or [])
        return {name: value for name, _, value in entries}

    @property
    def size_bytes(self) -> int:
        """Of the configuration and all layers, compressed."""
        return sum(blob.size for blob in self.manifest.blobs)


@dataclass(frozen=True)
class Step:
    """One layer more, and what the image's history says of it."""

    layer: Layer
    said: str


def read_image(use: StoreUse, manifest: Descriptor) -> Image:
    """Read a held image.

    Raises:
        WorkError: as the store says; also when what is there is no image (transient).
    """
    try:
        read = Manifest.parse(_document(use, manifest))
        configuration = json.loads(_document(use, read.config))
        if not isinstance(configuration, dict) or not configuration.get("os") or not configuration.get("architecture"):
            raise InvalidManifestError("a configuration has no platform")
    except ValueError as error:
        raise WorkError(ErrorClass.TRANSIENT, f"an image of the store cannot be read: {error}") from error
    return Image(read, configuration)


def named_image(use: StoreUse, name: str) -> Image | None:
    """The image that a name stands for, held; None where anything of it is missing.

    Raises:
        WorkError: as `read_image` says.
    """
    manifest = use.named(name)
    return None if manifest is None else read_image(use, manifest)


def image_name(manifest_digest: str) -> str:
    """What the store calls the image with this manifest."""
    return f"image/{manifest_digest.partition(':')[2]}"


def add_image(
    use: StoreUse, configuration: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> Image:
    """Add an image with this very configuration on layers that the use holds.

    Raises:
        WorkError: as the store says.
    """
    digest, size = use.add([configuration])
    manifest = Manifest(Descriptor(OCI_CONFIG, digest, size), tuple(layers), annotations=annotations or {})
    use.add([manifest.content], manifest.descriptor.digest)
    return read_image(use, Descriptor(OCI_MANIFEST, manifest.descriptor.digest, manifest.descriptor.size))


def derived_image(
    use: StoreUse,
    base: Image,
    steps: Sequence[Step],
    run_config: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Add an image of the base with more layers, which is started as `run_config` says and else as the base is.

    Raises:
        WorkError: as the store says.
    """
    below = base.configuration
    started = {**base.run_config, **run_config}
    started.pop("OnBuild", None)  # a command of the base's author, for builds that can run commands
    document = {
        **{key: below[key] for key in _KEPT_FROM_BASE if key in below},
        "created": CREATED,
        "config": {key: value for key, value in started.items() if value is not None},
        "rootfs": {
            "type": "layers",
            "diff_ids": [*below["rootfs"]["diff_ids"], *(step.layer.diff_id for step in steps)],
        },
        "history": [
            *(below.get("history") or []),
            *({"created": CREATED, "created_by": step.said, "comment": "Longshore"} for step in steps),
        ],
    }
    configuration = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    layers = [*base.manifest.layers, *(step.layer.blob for step in steps)]
    return add_image(use, configuration, layers, annotations)


def _document(use: StoreUse, blob: Descriptor) -> bytes:
    with use.open(blob.digest) as reader:
        parts = []
        left = _MAX_DOCUMENT_BYTES
        while left and (part := reader.read(left)):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)
