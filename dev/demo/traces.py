"""What the demo leaves in an engine, which may be the user's own: the images of its algorithm."""

from contextlib import closing, suppress

import docker
import requests
from docker.errors import DockerException, ImageNotFound

REPOSITORY = "demo/linearfit"
"""The demo's algorithm as image references spell it."""


def remove_images(docker_host: str, registry: str) -> list[str]:
    """Remove from the engine every name that images of the algorithm have; returns the names.

    Raises:
        DockerException, requests.RequestException: the engine does not do it.
    """
    repositories = (f"longshore/{REPOSITORY}", f"{registry}/{REPOSITORY}")
    with closing(docker.DockerClient(base_url=docker_host, timeout=60)) as client:
        names = [
            name
            for image in client.images.list()
            for name in [*(image.attrs["RepoTags"] or []), *(image.attrs["RepoDigests"] or [])]
            if _repository(name) in repositories
        ]
        for name in names:
            with suppress(ImageNotFound):  # it went with another of its names
                client.images.remove(name, force=True)
    return names


def remove_traces(docker_host: str, registry: str) -> None:
    """Remove them at the end of the demo; an engine that is gone has no traces."""
    with suppress(DockerException, requests.RequestException):
        remove_images(docker_host, registry)


def _repository(name: str) -> str:
    before, at, _ = name.partition("@")
    return before if at else name.rpartition(":")[0]
