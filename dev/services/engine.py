"""A Docker engine: the one that runs here, or a private one with all its files in a directory of its own."""

import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException

from dev.services.mounts import unmount_below
from dev.services.place import remove_tree
from dev.services.processes import PartFailedError, descendants, required_program, running, say, signals_deferred

_SYSTEM_SOCKET = Path("/var/run/docker.sock")
_ENGINE_PROCESS = re.compile(r"^(dockerd|containerd|containerd-shim\S*|docker-init|runc)$")


def engine_answers(docker_host: str) -> bool:
    """Whether an engine answers at this address within five seconds."""
    scheme, _, path = docker_host.partition("://")
    if scheme == "unix" and not _accepts(path):
        return False  # docker-py would leave a socket open for every failed attempt
    try:
        with closing(docker.DockerClient(base_url=docker_host, timeout=5)) as client:
            return bool(client.ping())
    except (DockerException, requests.RequestException):
        return False


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def running_engine() -> str | None:
    """The address of an engine that answers: the one `DOCKER_HOST` names, else the system's; None without either.

    Raises:
        PartFailedError: `DOCKER_HOST` names one that does not answer. Quietly using another would surprise.
    """
    named = os.environ.get("DOCKER_HOST")
    if named:
        if not engine_answers(named):
            raise PartFailedError(f"DOCKER_HOST names {named}, which does not answer: start it or unset DOCKER_HOST")
        return named
    system = f"unix://{_SYSTEM_SOCKET}"
    return system if _SYSTEM_SOCKET.is_socket() and engine_answers(system) else None


def engine_sockets() -> Path:
    """A new directory for the sockets of a private engine."""
    return Path(tempfile.mkdtemp(prefix="longshore-engine-", dir="/run"))


@contextmanager
def private_engine(directory: Path, *, sockets: Path | None = None, live_restore: bool = False) -> Iterator[str]:
    """An engine of our own for the length of the block; yields its DOCKER_HOST.

    Its containers have the host's network or none (no bridge, no firewall rules are made). Images and containers are
    below `directory`, which must be on disk; sockets are below /run, because their paths may have 107 bytes at most
    (unix(7)). At the end containers, containerd and shims are gone and nothing is mounted.

    `live_restore`: containers that run already, of an engine that was killed there, go on.

    Raises:
        PartFailedError: this is not root, dockerd is not installed or does not come up.
    """
    if os.geteuid() != 0:
        raise PartFailedError("a private engine needs root: start Docker yourself and set DOCKER_HOST")
    dockerd = required_program("dockerd")
    say("starting a private Docker engine")
    directory.mkdir(parents=True, exist_ok=True)
    run = sockets or engine_sockets()
    run.mkdir(exist_ok=True)
    address = f"unix://{run}/docker.sock"
    command = [dockerd, "--bridge=none", "--iptables=false", "--userland-proxy=false", "--shutdown-timeout=10"]
    command += ["--data-root", f"{directory}/data", "--exec-root", f"{run}/exec", "--pidfile", f"{run}/pid"]
    if live_restore:
        command.append("--live-restore")
    try:
        with running(
            "dockerd",
            [*command, "--host", address],
            log=directory / "engine.log",
            ready=lambda: engine_answers(address),
            grace=25,
            environment={"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
        ):
            try:
                yield address
            finally:
                with signals_deferred():
                    _kill_containers(address)
    finally:
        with signals_deferred():
            _end_leftovers(run)
            unmount_below(directory)
            remove_tree(run)


def _kill_containers(address: str) -> None:
    """Spare the engine its polite wait of ten seconds for every container."""
    if not engine_answers(address):
        return
    with (
        suppress(DockerException, requests.RequestException),
        closing(docker.DockerClient(base_url=address, timeout=10)) as client,
    ):
        for container in client.containers.list():
            with suppress(APIError):
                container.kill()


def _end_leftovers(run: Path) -> None:
    """Kill what an engine that had to be killed left: its containerd, its shims and the containers below those."""
    for pid in engine_processes(run):
        for member in [*descendants(pid), pid]:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)


def engine_processes(run: Path) -> list[int]:
    """The ids of engine programs whose command line names this directory: containerd and a shim per container."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if _ENGINE_PROCESS.match(Path(words[0]).name) and any(f"{run}/" in word for word in words[1:]):
                found.append(int(entry.name))
    return found
