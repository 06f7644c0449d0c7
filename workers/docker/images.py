"""Images on the Docker engine, by reference or id: describe, name and remove them."""

from typing import Any, cast

from docker.errors import APIError, ImageNotFound

from shared.registry.reference import normalize_name
from workers.docker.connection import engine, engine_errors

CONFLICT = 409
"""The engine's status for an image that a container or another image needs."""


def described_image(reference: str) -> dict[str, Any] | None:
    """The engine's description of an image (Engine API, "Inspect an image"), or None where it has none.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    with engine_errors():
        try:
            return cast("dict[str, Any]", engine().inspect_image(reference))
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


def local_reference(owner: str, name: str, commit: str) -> str:
    """What an engine calls the image of a commit, where one has it."""
    return f"longshore/{normalize_name(owner)}/{normalize_name(name)}:{commit}"
