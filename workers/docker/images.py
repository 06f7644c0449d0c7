"""What the engine has: images by reference or id.

An image of the store into the engine, written as it is read (Engine API, "Import images").
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

from docker.errors import APIError, ImageNotFound

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.archive import Entry, archived, file_entry, plain_entry
from workers.builds.assembly.image import Image
from workers.builds.limits import Deadline
from workers.docker.connection import NO_SPACE, disk_is_full, engine, engine_address, engine_errors, interruptible
from workers.images.image_store import StoreUse
from workers.images.oci import Descriptor

CONFLICT = 409
"""The engine's status for an image that a container or another image needs."""


def described_image(reference: str) -> dict[str, Any] | None:
    """The engine's description of an image (Engine API, "Inspect an image"), or None where it has none.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            return cast("dict[str, Any]", engine().inspect_image(reference))  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None


def image_id_of(reference: str) -> str | None:
    """The id (`sha256:…`) of the image that a reference names, or None.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    described = described_image(reference)
    return None if described is None else str(described["Id"])


def has_image(image_id: str) -> bool:
    """Whether the engine has the image.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    return described_image(image_id) is not None


def remove_reference(reference: str) -> None:
    """Take a tag, or an id that no tag names, off the engine; one that is gone or still in use is left alone.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            engine().remove_image(reference)
        except ImageNotFound:
            return
        except APIError as error:
            if error.status_code != CONFLICT:
                raise


def name_image(image_id: str, reference: str) -> None:
    """Give an image a name, so that the engine keeps it.

    Raises:
        WorkError: the engine does not answer (unavailable), or has no such image (invalid).
    """
    repository, _, tag = reference.rpartition(":")
    with engine_errors():
        engine().tag(image_id, repository, tag=tag)


_CHUNK_BYTES = 1024 * 1024
_SMALL_BYTES = 256 * 1024
"""What is sent at once. An engine that has the layers below of another image does not ask for them: for a change of
source alone that is all; else all is sent again, with what is larger."""


def load_image(use: StoreUse, image: Image, stop: CancelToken, deadline: Deadline | None = None) -> str:
    """Give the engine an image unless it has it, and give its id: the digest of the configuration.

    The image gets no name there.

    Raises:
        Stopped, WorkError: as `interruptible` and the store say; also where the engine does not take the image
            (transient), or gives it another id (unavailable).
    """
    image_id = image.manifest.config.digest
    if has_image(image_id):
        return image_id
    blobs = image.manifest.blobs
    small = [blob for blob in blobs if blob.size <= _SMALL_BYTES]
    refusal = _refusal(use, image, small, stop, deadline)
    if refusal is not None and len(small) < len(blobs):
        refusal = _refusal(use, image, blobs, stop, deadline)
    if refusal is not None:
        raise _load_error(refusal)
    if not has_image(image_id):
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            "the Docker engine knows images by other ids than those of their configurations: have it keep images in "
            "its own store (the feature containerd-snapshotter off in daemon.json); the job waits",
        )
    return image_id


def _refusal(
    use: StoreUse,
    image: Image,
    sent: Sequence[Descriptor],
    stop: CancelToken,
    deadline: Deadline | None,
) -> str | None:
    """Send these blobs of the image, and give what the engine says where it does not take the image so."""
    with interruptible(stop, deadline) as client:
        answer = client.load_image(archived(_members(use, image, sent)), quiet=True)  # type: ignore[no-untyped-call]
        return next((str(part["error"]) for part in answer if "error" in part), None)


def _members(use: StoreUse, image: Image, sent: Sequence[Descriptor]) -> Iterator[Entry]:
    config, layers = image.manifest.config, image.manifest.layers
    for blob in sent:
        entry = plain_entry(_path(blob))
        entry.size = blob.size
        yield entry, _content(use, blob)
    said = {
        "Config": _path(config),
        "RepoTags": None,
        "Layers": [_path(layer) for layer in layers],
    }
    yield file_entry("manifest.json", json.dumps([said]).encode())


def _path(blob: Descriptor) -> str:
    return blob.digest.partition(":")[2]


def _content(use: StoreUse, blob: Descriptor) -> Iterator[bytes]:
    with use.open(blob.digest) as reader:
        while chunk := reader.read(_CHUNK_BYTES):
            yield chunk


def _load_error(said: str) -> WorkError:
    if NO_SPACE in said.lower():
        return disk_is_full(f"the Docker engine at {engine_address()}")
    return WorkError(ErrorClass.TRANSIENT, f"the Docker engine did not take an image of the store: {said}")
