"""Images and containers on the Docker engine, by reference or id: describe, name and remove them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from docker import APIClient
from docker.errors import APIError, ImageNotFound, NotFound

from shared.errors import ErrorClass, WorkError
from shared.registry.reference import normalize_name
from workers.docker.connection import engine, engine_errors


def described_image(reference: str) -> dict[str, Any] | None:
    """Return the engine's description of an image (Engine API, "Inspect an image"); None if it has no such image.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    with engine_errors(), suppress(ImageNotFound):
        return cast("dict[str, Any]", engine().inspect_image(reference))
    return None


def image_id_of(reference: str) -> str | None:
    """Return the id (`sha256:…`) of an image, if the engine has it.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    described = described_image(reference)
    return None if described is None else str(described["Id"])


def has_image(image_id: str) -> bool:
    """Return whether the engine has the image.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    return described_image(image_id) is not None


def remove_reference(reference: str) -> None:
    """Remove a tag, or an untagged image by its id; no-op if it is gone or in use.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    with engine_errors(), suppress(ImageNotFound):
        try:
            engine().remove_image(reference)
        except APIError as error:
            if error.status_code != 409:  # a container or another image uses it
                raise


@contextmanager
def image_needed(reference: str) -> Iterator[None]:
    """Let a job try again whose image was removed while it used it, by a load check that had loaded it as well.

    Raises:
        WorkError: the engine has no such image (transient).

    """
    try:
        yield
    except ImageNotFound as error:
        raise WorkError(
            ErrorClass.TRANSIENT, f"the Docker engine does not have the image {reference} any more"
        ) from error


def name_image(image_id: str, reference: str) -> None:
    """Tag an image, so that the engine keeps it.

    Raises:
        WorkError: the engine does not respond (unavailable), or has no such image (transient).

    """
    repository, _, tag = reference.rpartition(":")
    with engine_errors(), image_needed(image_id):
        engine().tag(image_id, repository, tag=tag)


def local_reference(owner: str, name: str, commit: str) -> str:
    return f"longshore/{normalize_name(owner)}/{normalize_name(name)}:{commit}"


def remove_container(container: str, client: APIClient | None = None) -> None:
    """Remove a container with its volumes, even while it runs; a no-op if it is gone.

    `client` is used for its engine; the default is the engine that is configured now.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    with engine_errors(), suppress(NotFound):
        try:
            (client or engine()).remove_container(container, v=True, force=True)
        except APIError as error:
            if "already in progress" not in str(error.explanation):
                raise
