"""Find the Docker engine of this machine, or run a private one with all its files in a directory."""

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
from dev.services.processes import ServiceFailedError, descendants, required_program, running, say, signals_deferred
from dev.services.workdir import remove_tree

_SYSTEM_SOCKET = Path("/var/run/docker.sock")
_ENGINE_PROCESS = re.compile(r"^(dockerd|containerd|containerd-shim\S*|docker-init|runc)$")


def engine_answers(docker_host: str) -> bool:
    """Return whether an engine responds at this address within five seconds."""
    scheme, _, path = docker_host.partition("://")
    if scheme == "unix":
        return _answers_ping(path)
    try:
        with closing(docker.DockerClient(base_url=docker_host, timeout=5)) as client:
            return bool(client.ping())
    except (DockerException, requests.RequestException):
        return False


def _answers_ping(path: str) -> bool:
    """Return whether the engine at a unix socket answers `GET /_ping` (Engine API).

    Not with docker-py, which leaves a socket open for each failed attempt. An engine that starts may accept one
    connection and refuse the next.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(path)
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in client.recv(1024).partition(b"\r\n")[0]
        except OSError:
            return False


def running_engine() -> str | None:
    """Return the address of an engine that responds: the one of `DOCKER_HOST`, else the system's; None without either.

    Raises:
        ServiceFailedError: the engine of `DOCKER_HOST` does not respond. Using another one silently would surprise.
    """
    named = os.environ.get("DOCKER_HOST")
    if named:
        if not engine_answers(named):
            raise ServiceFailedError(
                f"DOCKER_HOST names {named}, which does not respond: start it or unset DOCKER_HOST"
            )
        return named
    system = f"unix://{_SYSTEM_SOCKET}"
    return system if _SYSTEM_SOCKET.is_socket() and engine_answers(system) else None


def engine_sockets() -> Path:
    """Make a directory for the sockets of a private engine."""
    return Path(tempfile.mkdtemp(prefix="longshore-engine-", dir="/run"))


@contextmanager
def private_engine(
    directory: Path, *, sockets: Path | None = None, live_restore: bool = False, network_namespace: str | None = None
) -> Iterator[str]:
    """Run a private engine during the block; yield its DOCKER_HOST.

    Its containers have the host's network or none (no bridge, no firewall rules). Images and containers are below
    `directory`, which must be on disk; sockets are below /run, because their paths may have at most 107 bytes
    (unix(7)). At the end containers, containerd and shims are gone and nothing is mounted.

    With `live_restore`, running containers of an engine that was killed there continue. In a network namespace of its
    own (`ip netns`) it makes networks with firewall rules, as it does on a machine of its own.

    Raises:
        ServiceFailedError: this is not root, dockerd is not installed or does not start.
    """
    if os.geteuid() != 0:
        raise ServiceFailedError("a private engine needs root: start Docker yourself and set DOCKER_HOST")
    dockerd = required_program("dockerd")
    say("starting a private Docker engine")
    directory.mkdir(parents=True, exist_ok=True)
    run = sockets or engine_sockets()
    run.mkdir(exist_ok=True)
    address = f"unix://{run}/docker.sock"
    command = [dockerd, "--bridge=none", "--userland-proxy=false", "--shutdown-timeout=10"]
    if network_namespace is None:
        command.append("--iptables=false")
    else:  # `ip netns exec` would hide the control groups
        command = ["nsenter", f"--net=/run/netns/{network_namespace}", *command]
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
                    _remove_containers_and_networks(address)
    finally:
        with signals_deferred():
            _end_leftovers(run)
            unmount_below(directory)
            remove_tree(run)


def _remove_containers_and_networks(address: str) -> None:
    """Remove all running containers, because the engine would wait ten seconds for each, and all networks.

    The interface of a network would stay on this machine.
    """
    if not engine_answers(address):
        return
    with (
        suppress(DockerException, requests.RequestException),
        closing(docker.DockerClient(base_url=address, timeout=10)) as client,
    ):
        for container in client.containers.list():
            with suppress(APIError):
                container.remove(force=True)
        for network in client.networks.list(filters={"type": "custom"}):
            with suppress(APIError):
                network.remove()


def _end_leftovers(run: Path) -> None:
    """Kill what a killed engine left behind: its containerd, its shims and their containers."""
    for pid in engine_processes(run):
        for member in [*descendants(pid), pid]:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)


def engine_processes(run: Path) -> list[int]:
    """Return the ids of engine processes whose command line has this directory: containerd and a shim per container."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if _ENGINE_PROCESS.match(Path(words[0]).name) and any(f"{run}/" in word for word in words[1:]):
                pids.append(int(entry.name))
    return pids
