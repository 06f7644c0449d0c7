"""Push and pull images through the Docker engine, and sum up the progress in its event stream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from docker.errors import APIError, ImageNotFound

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.pushes.progress import BlobProgress, Progress
from shared.registry.credentials import Credentials
from shared.settings import settings
from workers.docker.connection import engine, engine_errors, interruptible
from workers.docker.errors import classify_message
from workers.docker.images import described_image, image_id_of, remove_reference

_DONE_STATUSES = ("Pushed", "Layer already exists", "Mounted from", "Skipped foreign layer", "Already exists")


def push_image(
    image_id: str,
    repository: str,
    tag: str,
    credentials: Credentials | None,
    *,
    on_progress: Callable[[Progress], None],
    stop: CancelToken,
) -> str:
    """Push an image to `repository:tag`; return the digest of the manifest that the engine made for it.

    `on_progress` is called for every event of the engine, from this thread; what it raises ends the push. Without
    credentials the push is anonymous: the operator's own Docker configuration is never used.

    Raises:
        WorkCancelledError: the push was cancelled.
        WorkError: the registry or the engine failed; the engine has no such image (not_found); the name is that of a
            base image (invalid).

    """
    if _familiar(f"{repository}:{tag}") in {_familiar(name) for name in settings().base_images.values()}:
        raise WorkError(
            ErrorClass.INVALID,
            f"{repository}:{tag} is the name of a base image of this installation (`longshore environments`). The "
            "engine would build everybody's images on this one: use the direct transport for this registry.",
        )
    with _tagged(image_id, repository, tag), interruptible(stop) as client:
        digest, progress = None, EngineProgress()
        for event in _events(partial(client.push, repository, tag=tag), repository, credentials):
            stop.check()
            aux = event.get("aux") or {}
            digest = str(aux["Digest"]) if "Digest" in aux else digest
            progress.add(event)
            on_progress(progress.total())
    if digest is None:
        raise WorkError(
            ErrorClass.TRANSIENT, f"the Docker engine ended the push to {repository}:{tag} without naming a digest"
        )
    return digest


def pull_image(
    repository: str,
    digest: str,
    credentials: Credentials | None,
    *,
    on_event: Callable[[str], None],
    stop: CancelToken,
) -> str:
    """Pull `repository@digest`; return the image's id on the engine. `on_event` gets each event of the engine as text.

    Raises:
        WorkCancelledError: the work was cancelled.
        WorkError: the registry or the engine failed.

    """
    with interruptible(stop) as client:
        for event in _events(partial(client.pull, repository, tag=digest), repository, credentials):
            stop.check()
            on_event(" ".join(str(event[part]) for part in ("id", "status", "progress") if part in event))
    image_id = image_id_of(f"{repository}@{digest}")
    if image_id is None:
        raise WorkError(ErrorClass.TRANSIENT, f"the Docker engine ended the pull of {repository}@{digest} without it")
    return image_id


def _events(
    start: Callable[..., Iterator[dict[str, Any]]], repository: str, credentials: Credentials | None
) -> Iterator[dict[str, Any]]:
    """Start a push or pull and read its stream to the end; raise the errors inside it, which docker-py does not."""
    classify = partial(
        classify_message,
        host=repository.partition("/")[0],
        secrets=(credentials.password,) if credentials else (),
    )
    try:
        events = start(stream=True, decode=True, auth_config=_auth_config(credentials, repository))
    except APIError as error:
        # A registry's refusal can also come as an HTTP error of the engine, before there is a stream.
        raise classify(str(error.explanation or error)) from error
    for event in events:
        if "error" in event:
            raise classify(str(event["error"]))
        yield event


def _auth_config(credentials: Credentials | None, repository: str) -> dict[str, str]:
    if credentials is None:
        return {}
    host = repository.partition("/")[0]
    if credentials.is_identity_token:
        return {"identitytoken": credentials.password, "serveraddress": host}
    return {"username": credentials.username, "password": credentials.password, "serveraddress": host}


def _familiar(reference: str) -> str:
    """Return a reference in the form in which the engine lists images."""
    return reference.removeprefix("index.").removeprefix("docker.io/").removeprefix("library/")


@contextmanager
def _tagged(image_id: str, repository: str, tag: str) -> Iterator[None]:
    """Give the image the tag under which the engine pushes it, for the block.

    An image that had the tag before gets it back. The last tag of an image stays: the engine would delete the image.
    """
    reference = f"{repository}:{tag}"
    previous_id = image_id_of(reference)
    with engine_errors():
        try:
            engine().tag(image_id, repository, tag=tag)
        except ImageNotFound as error:
            raise WorkError(ErrorClass.NOT_FOUND, f"the Docker engine has no image {image_id} any more") from error
    try:
        yield
    finally:
        # If the engine does not respond now, a superfluous tag is left; the push has not failed for that.
        with suppress(WorkError), engine_errors():
            if previous_id is None:
                described = described_image(image_id)
                if described is not None and set(described.get("RepoTags") or []) - {reference}:
                    remove_reference(reference)
            elif previous_id != image_id:
                engine().tag(previous_id, repository, tag=tag)


class EngineProgress:
    """Sum up the events of one push. The engine counts bytes before compression."""

    def __init__(self) -> None:
        self._layers: dict[str, BlobProgress] = {}

    def add(self, event: dict[str, Any]) -> None:
        layer_id, status = event.get("id"), str(event.get("status", ""))
        if not layer_id:
            return
        layer = self._layers.setdefault(str(layer_id), BlobProgress())
        if status.startswith(_DONE_STATUSES):
            layer.is_done = True
            layer.done_bytes = layer.total_bytes
        elif status.startswith("Retrying"):
            # The engine sends the layer again from its beginning.
            layer.is_done, layer.done_bytes = False, 0
        elif status == "Pushing":
            detail = event.get("progressDetail") or {}
            layer.total_bytes = max(layer.total_bytes, int(detail.get("total") or 0))
            # The engine counts the padding of the archive too, which is not part of the total.
            layer.done_bytes = min(int(detail.get("current") or 0), layer.total_bytes)

    def total(self) -> Progress:
        return Progress.of(self._layers.values())
