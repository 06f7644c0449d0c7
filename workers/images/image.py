"""Images of the store: read them, add them, derive one from another (image-spec 1.1: image configuration)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import ErrorClass, WorkError
from workers.images.image_store import StoreUse
from workers.images.layers import Layer
from workers.images.oci import OCI_CONFIG, Descriptor, InvalidManifestError, Manifest, digest_of

CREATED = "1980-01-02T00:00:00Z"
"""Creation time of every image, as of the files in layers: the same parts have the same digest."""
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_READ_BYTES = 256 * 1024
_KEPT_FROM_BASE = ("architecture", "os", "variant", "os.version", "os.features")


@dataclass(frozen=True)
class Image:
    """An image in the store, with its configuration as a document."""

    manifest: Manifest
    configuration: Mapping[str, Any]

    @property
    def run_config(self) -> dict[str, Any]:
        return dict(self.configuration.get("config") or {})

    @property
    def platform(self) -> str:
        """The platform, such as `linux/amd64` or `linux/arm/v7`."""
        return "/".join(
            self.configuration[key] for key in ("os", "architecture", "variant") if self.configuration.get(key)
        )

    @property
    def variables(self) -> dict[str, str]:
        entries = (entry.partition("=") for entry in self.run_config.get("Env") or [])
        return {name: value for name, _, value in entries}

    @property
    def size_bytes(self) -> int:
        """Size of the configuration and all compressed layers."""
        return sum(blob.size for blob in self.manifest.blobs)


@dataclass(frozen=True)
class Step:
    """A layer to add, and its entry in the history of the image."""

    layer: Layer
    created_by: str


def read_image(use: StoreUse, manifest: Descriptor) -> Image:
    """Read a held image.

    Raises:
        WorkError: as the store; also if the manifest or configuration is invalid (transient).

    """
    try:
        read = Manifest.parse(_document(use, manifest))
        configuration = json.loads(_document(use, read.config))
        if not isinstance(configuration, dict) or not configuration.get("os") or not configuration.get("architecture"):
            raise InvalidManifestError("a configuration has no platform")
    except (ValueError, RecursionError) as error:
        raise WorkError(ErrorClass.TRANSIENT, f"an image of the store cannot be read: {error}") from error
    return Image(read, configuration)


def named_image(use: StoreUse, name: str) -> Image | None:
    """Return the image with a name, held; None if it or a part of it is missing.

    Raises:
        WorkError: as `read_image`.

    """
    manifest = use.named(name)
    return None if manifest is None else read_image(use, manifest)


def image_name(manifest_digest: str) -> str:
    return f"image/{manifest_digest.partition(':')[2]}"


def add_image(
    use: StoreUse, configuration: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> Image:
    """Add an image of this configuration and of layers that the use holds.

    Raises:
        WorkError: as the store.

    """
    manifest = Manifest(Descriptor(OCI_CONFIG, *use.add([configuration])), tuple(layers), annotations=annotations or {})
    use.add([manifest.content], manifest.descriptor.digest)
    return read_image(use, manifest.descriptor)


def derived_image(
    use: StoreUse,
    base: Image,
    steps: Sequence[Step],
    run_config: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Add an image of the base with more layers; settings in `run_config` replace those of the base, None removes one.

    Raises:
        WorkError: as the store.

    """
    below = base.configuration
    settings = {**base.run_config, **run_config}
    settings.pop("OnBuild", None)  # commands for builds that run commands
    document = {
        **{key: below[key] for key in _KEPT_FROM_BASE if key in below},
        "created": CREATED,
        "config": {key: value for key, value in settings.items() if value is not None},
        "rootfs": {
            "type": "layers",
            "diff_ids": [*below["rootfs"]["diff_ids"], *(step.layer.diff_id for step in steps)],
        },
        "history": [
            *(below.get("history") or []),
            *({"created": CREATED, "created_by": step.created_by, "comment": "Longshore"} for step in steps),
        ],
    }
    configuration = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return add_image(use, configuration, [*base.manifest.layers, *(step.layer.blob for step in steps)], annotations)


def _document(use: StoreUse, blob: Descriptor) -> bytes:
    """Return a document, after checking its digest.

    Raises:
        InvalidManifestError: it is larger than a document may be, or damaged, and is then removed from the store.
    """
    with use.open(blob.digest) as reader:
        content = bytearray()
        while len(content) <= MAX_DOCUMENT_BYTES and (part := reader.read(_READ_BYTES)):
            content += part
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidManifestError(f"{blob.digest} is larger than {MAX_DOCUMENT_BYTES} bytes")
    if digest_of(content) != blob.digest:
        use.forget(blob.digest)
        raise InvalidManifestError(f"{blob.digest} is damaged")
    return bytes(content)
