"""The parts of the demo: an engine, a registry with passwords, a base image, and Longshore itself."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.demo.screen import Screen
from dev.demo.surroundings import environment_of_builds
from dev.demo.traces import remove_traces
from dev.services.engine import private_engine, running_engine
from dev.services.processes import free_port, port_answers, running, say, signals_deferred
from dev.services.registry import PrivateRegistry, private_registry

PULLER, PUSHER = "puller", "pusher"
_USUAL_PORT = 8080
_START_SECONDS = 60
_IMPATIENT = {"LONGSHORE_SHUTDOWN_SECONDS": "3", "LONGSHORE_RETRY_DELAYS": "1,5"}
"""Somebody watches: what runs when the demo is interrupted is not finished, and what fails is not tried for minutes."""
_STOP_SECONDS = 25
_KEPT_VARIABLES = ("LONGSHORE_BASE_IMAGE", "LONGSHORE_BUILD_", "LONGSHORE_PARTS_")


@dataclass(frozen=True)
class Stage:
    """Where everything answers."""

    url: str
    admin_key_file: Path
    registry: PrivateRegistry
    docker_host: str


@contextmanager
def set_stage(directory: Path, screen: Screen) -> Iterator[Stage]:
    """All parts, with their files below `directory`, for the length of the block.

    Raises:
        PartFailedError: one could not be had; the text says why.
    """
    _forget_settings()
    with _stopping_visibly(screen) as stack:
        with screen.waiting("looking for a Docker engine") as wait:
            docker_host = running_engine()
            if docker_host is None:
                docker_host = stack.enter_context(private_engine(directory / "engine"))
            say(f"Docker engine: {docker_host}")

            wait.text = "starting a registry"
            users = {PULLER: secrets.token_urlsafe(12), PUSHER: secrets.token_urlsafe(12)}
            registry = stack.enter_context(private_registry(directory / "registry", users=users))
            say(f"registry: {registry.host}, with a password file that knows {PULLER} and {PUSHER}")

            wait.text = "looking for a Python base image"
            environment = {"DOCKER_HOST": docker_host, **environment_of_builds(docker_host)}
            environment |= _IMPATIENT
            say(f"base image: {environment['LONGSHORE_BASE_IMAGE']}")

            # After Longshore has ended, and with it whatever runs of them.
            stack.callback(remove_traces, docker_host, registry.host)
            wait.text = "starting Longshore"
            url = stack.enter_context(_longshore(directory, environment))
            say(f"Longshore: {url}, its log: {longshore_log(directory)}")
        yield Stage(url, directory / "longshore" / "admin-key", registry, docker_host)


@contextmanager
def _stopping_visibly(screen: Screen) -> Iterator[ExitStack]:
    """A stack whose unwinding is shown, and is not cut short by a second Ctrl-C."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        screen.line()
        with signals_deferred(), screen.waiting("stopping what was started"):
            stack.close()


def longshore_log(directory: Path) -> Path:
    """Where the log of Longshore is."""
    return directory / "longshore.log"


@contextmanager
def _longshore(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    port = free_port() if port_answers(_USUAL_PORT) else _USUAL_PORT
    url = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).with_name("longshore")
    command = [str(program), "up", "--data-dir", str(directory / "longshore"), "--port", str(port)]
    say("starting Longshore: " + " ".join(["longshore", *command[1:]]))
    with running(
        "longshore",
        command,
        log=longshore_log(directory),
        ready=lambda: f"Longshore is ready at {url}" in longshore_log(directory).read_text(errors="replace"),
        seconds=_START_SECONDS,
        grace=_STOP_SECONDS,
        environment=environment,
    ):
        yield url


def _forget_settings() -> None:
    """The demo has a database, keys and ports of its own, whatever else Longshore is set up for in this shell."""
    for name in [name for name in os.environ if name.startswith("LONGSHORE_")]:
        if not name.startswith(_KEPT_VARIABLES):
            del os.environ[name]
