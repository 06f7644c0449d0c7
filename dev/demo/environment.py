"""Start the services of the demo: an engine, a registry with passwords, a base image, and Longshore itself."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from dev.demo.build_settings import build_variables
from dev.demo.screen import Screen
from dev.services.engine import private_engine, running_engine
from dev.services.processes import free_port, port_answers, running, say, signals_deferred
from dev.services.registry import PrivateRegistry, private_registry

PULLER, PUSHER = "puller", "pusher"
REPOSITORY = "demo/linearfit"
"""The repository of the demo's algorithm in image references."""
_DEFAULT_PORT = 8080
_START_TIMEOUT_SECONDS = 60
_SHORT_WAITS = {"LONGSHORE_SHUTDOWN_SECONDS": "3", "LONGSHORE_RETRY_DELAYS": "1,5"}
"""A person is watching: an interrupted demo does not wait for running jobs, and retries come after seconds."""
_STOP_GRACE_SECONDS = 25
_KEPT_VARIABLES = ("LONGSHORE_BASE_IMAGE", "LONGSHORE_BUILD_", "LONGSHORE_DEV_")


@dataclass(frozen=True)
class DemoEnvironment:
    """Addresses and credentials of the running services."""

    url: str
    admin_key_file: Path
    registry: PrivateRegistry
    docker_host: str


@contextmanager
def demo_environment(directory: Path, screen: Screen) -> Iterator[DemoEnvironment]:
    """Run all services during the block, with their files below `directory`.

    Raises:
        ServiceFailedError: one could not be started; the message has the cause.
    """
    _unset_settings()
    with _stack_with_progress(screen) as stack:
        with screen.waiting("looking for a Docker engine") as wait:
            docker_host = running_engine()
            if docker_host is None:
                docker_host = stack.enter_context(private_engine(directory / "engine"))
            say(f"Docker engine: {docker_host}")

            wait.text = "starting a registry"
            users = {PULLER: secrets.token_urlsafe(12), PUSHER: secrets.token_urlsafe(12)}
            registry = stack.enter_context(private_registry(directory / "registry", users=users))
            say(f"registry: {registry.host}, with the users {PULLER} and {PUSHER}")

            wait.text = "looking for a Python base image"
            environment = {"DOCKER_HOST": docker_host, **build_variables(docker_host)}
            environment |= _SHORT_WAITS
            say(f"base image: {environment['LONGSHORE_BASE_IMAGE']}")

            # Called after Longshore has ended, and its containers with it.
            stack.callback(_remove_images_quietly, docker_host, registry.host)
            wait.text = "starting Longshore"
            url = stack.enter_context(_longshore(directory, environment))
            say(f"Longshore: {url}, its log: {longshore_log(directory)}")
        yield DemoEnvironment(url, directory / "longshore" / "admin-key", registry, docker_host)


def remove_images(docker_host: str, registry: str) -> list[str]:
    """Remove every name of the algorithm's images from the engine, which may be the user's own; return the names.

    Raises:
        DockerException, requests.RequestException: the engine failed.
    """
    repositories = (f"longshore/{REPOSITORY}", f"{registry}/{REPOSITORY}")
    with closing(docker.DockerClient(base_url=docker_host, timeout=60)) as client:
        names = [
            name
            for image in client.images.list()
            for name in [*(image.attrs["RepoTags"] or []), *(image.attrs["RepoDigests"] or [])]
            if _repository_of(name) in repositories
        ]
        for name in names:
            with suppress(ImageNotFound):  # removed together with another of its names
                client.images.remove(name, force=True)
    return names


def _remove_images_quietly(docker_host: str, registry: str) -> None:
    with suppress(DockerException, requests.RequestException):
        remove_images(docker_host, registry)


def _repository_of(name: str) -> str:
    before, at, _ = name.partition("@")
    return before if at else name.rpartition(":")[0]


@contextmanager
def _stack_with_progress(screen: Screen) -> Iterator[ExitStack]:
    """Yield a stack; its end is shown on the screen, and a second Ctrl-C does not interrupt it."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        screen.line()
        with signals_deferred(), screen.waiting("stopping all services"):
            stack.close()


def longshore_log(directory: Path) -> Path:
    return directory / "longshore.log"


@contextmanager
def _longshore(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    port = free_port() if port_answers(_DEFAULT_PORT) else _DEFAULT_PORT
    url = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).with_name("longshore")
    command = [str(program), "up", "--data-dir", str(directory / "longshore"), "--port", str(port)]
    say("starting Longshore: " + " ".join(["longshore", *command[1:]]))
    with running(
        "longshore",
        command,
        log=longshore_log(directory),
        ready=lambda: f"Longshore is ready at {url}" in longshore_log(directory).read_text(errors="replace"),
        seconds=_START_TIMEOUT_SECONDS,
        grace=_STOP_GRACE_SECONDS,
        environment=environment,
    ):
        yield url


def _unset_settings() -> None:
    """Unset the settings of this shell: the demo has a database, keys and ports of its own."""
    for name in [name for name in os.environ if name.startswith("LONGSHORE_")]:
        if not name.startswith(_KEPT_VARIABLES):
            del os.environ[name]
