"""Pushing an image through the engine, and pulling one back.

How far a push is, reckoned from what the engine says of each layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, ImageNotFound

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.registry.credentials import Credentials
from workers.docker.connection import engine, engine_errors, interruptible
from workers.docker.errors import classify_message
from workers.docker.images import described_image, image_id_of, remove_reference
from workers.pushes.transports.transport import Progress


def push_image(
    image_id: str,
    repository: str,
    tag: str,
    credentials: Credentials | None,
    *,
    on_progress: Callable[[Progress], None],
    stop: CancelToken,
) -> str:
    """Push an image to `repository:tag` and give the digest of the manifest that the engine made for it.

    `on_progress` is called for every event of the engine, from this thread; what it raises ends the push.
    Without credentials the push is anonymous: the operator's own Docker configuration is never used.

    Raises:
        Stopped: the stop was asked for.
        WorkError: what the registry or the engine said, classified; the engine has no such image (not_found).
    """
    with _tagged(image_id, repository, tag), interruptible(stop) as client:
        digest, tally = None, PushTally()
        with _refusals(repository, credentials):
            events = client.push(
                repository, tag=tag, stream=True, decode=True, auth_config=_auth_config(credentials, repository)
            )
        for event in _checked(events, repository, credentials):
            stop.check()
            aux = event.get("aux") or {}
            digest = str(aux["Digest"]) if "Digest" in aux else digest
            tally.read(event)
            on_progress(tally.progress())
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
    """Pull `repository@digest` and give the image's id on the engine; `on_event` is told what the engine does.

    Raises:
        Stopped: the stop was asked for.
        WorkError: what the registry or the engine said, classified.
    """
    with interruptible(stop) as client:
        with _refusals(repository, credentials):
            events = client.pull(
                repository, tag=digest, stream=True, decode=True, auth_config=_auth_config(credentials, repository)
            )
        for event in _checked(events, repository, credentials):
            stop.check()
            on_event(" ".join(str(event[part]) for part in ("id", "status", "progress") if part in event))
    image_id = image_id_of(f"{repository}@{digest}")
    if image_id is None:
        raise WorkError(ErrorClass.TRANSIENT, f"the Docker engine ended the pull of {repository}@{digest} without it")
    return image_id


def _auth_config(credentials: Credentials | None, repository: str) -> dict[str, str]:
    if credentials is None:
        return {}
    host = repository.partition("/")[0]
    if credentials.is_identity_token:
        return {"identitytoken": credentials.password, "serveraddress": host}
    return {"username": credentials.username, "password": credentials.password, "serveraddress": host}


@contextmanager
def _refusals(repository: str, credentials: Credentials | None) -> Iterator[None]:
    """A registry's refusal can come as the engine's own HTTP error too, before there is a stream."""
    try:
        yield
    except APIError as error:
        raise _failure(str(error.explanation or error), repository, credentials) from error


def _checked(
    events: Iterator[dict[str, Any]], repository: str, credentials: Credentials | None
) -> Iterator[dict[str, Any]]:
    """Every event to the end of the stream; a failure reported inside it is raised (docker-py does not)."""
    for event in events:
        if "error" in event:
            raise _failure(str(event["error"]), repository, credentials)
        yield event


def _failure(said: str, repository: str, credentials: Credentials | None) -> WorkError:
    secrets = (credentials.password,) if credentials else ()
    return classify_message(said, host=repository.partition("/")[0], secrets=secrets)


@contextmanager
def _tagged(image_id: str, repository: str, tag: str) -> Iterator[None]:
    """Give the image the name under which the engine pushes it, and take it away again.

    A name that stood there before goes back to its image. The image's last name stays, or the image would go with it.
    """
    reference = f"{repository}:{tag}"
    before = image_id_of(reference)
    with engine_errors():
        try:
            engine().tag(image_id, repository, tag=tag)
        except ImageNotFound as error:
            raise WorkError(ErrorClass.NOT_FOUND, f"the Docker engine has no image {image_id} any more") from error
    try:
        yield
    finally:
        # Were the engine gone now, a name too many would be left: no reason to call the push failed.
        with suppress(WorkError), engine_errors():
            if before is None:
                _untag(image_id, reference)
            elif before != image_id:
                engine().tag(before, repository, tag=tag)


def _untag(image_id: str, reference: str) -> None:
    described = described_image(image_id)
    if described is not None and set(described.get("RepoTags") or []) - {reference}:
        remove_reference(reference)


_ENDED = ("Pushed", "Layer already exists", "Mounted from", "Skipped foreign layer", "Already exists")


@dataclass
class _Layer:
    done: int = 0
    total: int = 0
    ended: bool = False


class PushTally:
    """Adds up the events of one push stream. Bytes are counted before compression."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}

    def read(self, event: dict[str, Any]) -> None:
        """Take the next event; one that is about no layer changes nothing."""
        layer_id, status = event.get("id"), str(event.get("status", ""))
        if not layer_id:
            return
        layer = self._layers.setdefault(str(layer_id), _Layer())
        if status.startswith(_ENDED):
            layer.ended = True
            layer.done = layer.total
        elif status.startswith("Retrying"):
            # The engine sends the layer again from its beginning.
            layer.ended, layer.done = False, 0
        elif status == "Pushing":
            detail = event.get("progressDetail") or {}
            layer.total = max(layer.total, int(detail.get("total") or 0))
            # Padding of the archive is counted by the engine, but is no part of the size that it names.
            layer.done = min(int(detail.get("current") or 0), layer.total)

    def progress(self) -> Progress:
        """How far the push is."""
        layers = self._layers.values()
        return Progress(
            done_bytes=sum(layer.done for layer in layers),
            total_bytes=sum(layer.total for layer in layers),
            layers_done=sum(layer.ended for layer in layers),
            layers_total=len(layers),
        )
