"""The image as the registry has it: pulled by its digest, and run without a network."""

import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container

from demo.caller import StepFailedError
from parts.processes import signals_deferred

_LISTEN_SECONDS = 60
_POLL_SECONDS = 0.1
_INSIDE = "/run/call"


def remove_images(client: docker.DockerClient, repositories: list[str]) -> list[str]:
    """Remove from the engine every name that images have in these repositories; returns the names."""
    names = [
        name
        for image in client.images.list()
        for name in [*(image.attrs["RepoTags"] or []), *(image.attrs["RepoDigests"] or [])]
        if _repository(name) in repositories
    ]
    for name in names:
        try:
            client.images.remove(name, force=True)
        except ImageNotFound:
            continue  # it went with another of its names
    return names


def _repository(name: str) -> str:
    before, at, _ = name.partition("@")
    return before if at else name.rpartition(":")[0]


def pull(client: docker.DockerClient, image: str, username: str, password: str) -> tuple[int, int]:
    """Pull an image; how many of its layers came from the registry, and how many the engine had already.

    Raises:
        StepFailedError: the registry does not give it.
    """
    credentials = {"username": username, "password": password}
    counted: Counter[str] = Counter()
    try:
        for message in client.api.pull(image, auth_config=credentials, stream=True, decode=True):
            if "error" in message:  # comes inside of an answer that began well
                raise StepFailedError(f"the pull failed: {message['error']}")
            counted[message.get("status", "")] += 1
    except (DockerException, requests.RequestException) as error:
        raise StepFailedError(f"the pull failed: {error}") from error
    return counted["Pull complete"], counted["Already exists"]


@contextmanager
def container_of(client: docker.DockerClient, image: str) -> Iterator[Path]:
    """The image running for the length of the block, with no network at all; yields the socket that it serves on.

    Raises:
        StepFailedError: it does not start, or does not listen.
    """
    with tempfile.TemporaryDirectory(prefix="longshore-") as private:
        shared = Path(private) / "call"
        shared.mkdir()
        shared.chmod(0o777)  # the algorithm is another user; the directory above is ours alone
        container: Container | None = None
        try:
            with signals_deferred():
                container = _run(client, image, shared)
            _wait_for_listener(container, shared / "algorithm.sock")
            yield shared / "algorithm.sock"
        finally:
            if container is not None:
                with signals_deferred():
                    container.remove(force=True, v=True)


def _run(client: docker.DockerClient, image: str, shared: Path) -> Container:
    try:
        return client.containers.run(
            image,
            detach=True,
            network_mode="none",
            volumes={str(shared): {"bind": _INSIDE, "mode": "rw"}},
            environment={"LONGSHORE_SOCKET": f"{_INSIDE}/algorithm.sock", "LONGSHORE_PORT": "0"},
        )
    except APIError as error:
        raise StepFailedError(f"the image does not start: {error.explanation}") from error


def _wait_for_listener(container: Container, path: Path) -> None:
    deadline = time.monotonic() + _LISTEN_SECONDS
    # Connected to by a name relative to the directory: paths of sockets may have 107 bytes at most (unix(7)).
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        while True:
            with socket.socket(socket.AF_UNIX) as trial:
                if trial.connect_ex(f"/proc/self/fd/{directory}/{path.name}") == 0:
                    return
            container.reload()
            if container.status == "exited" or time.monotonic() > deadline:
                log = container.logs(tail=15).decode(errors="replace")
                raise StepFailedError(f"the container does not listen ({container.status}):\n{log}")
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(directory)
