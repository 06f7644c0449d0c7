"""Two machines simulated with network namespaces: one with a Docker engine and a firewall, and its neighbour."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import APIClient

from dev.services.base_image import ensure_python_base
from dev.services.engine import private_engine

PORT = 8000
INTERNET = "203.0.113.10"
"""Stands for any address of the internet (RFC 5737)."""
MACHINE = "203.0.113.1"
PRIVATE = "10.9.0.1"
METADATA = "169.254.169.254"
PATIENCE_SECONDS = 30
LISTEN = f"""
import socket
listener = socket.create_server(("0.0.0.0", {PORT}), backlog=64)
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"here")
    connection.close()
"""
REACH = f"""
import json, os, socket, sys, threading, time
reached, begun = {{}}, time.monotonic()
def reach(address):
    try:
        with socket.create_connection((address, {PORT}), timeout={PATIENCE_SECONDS}) as connection:
            reached[address] = connection.recv(4) == b"here"
    except OSError:
        pass
threads = [threading.Thread(target=reach, args=(address,), daemon=True) for address in sys.argv[1:]]
for thread in threads:
    thread.start()
threads[0].join()
waits = 3 + 4 * (time.monotonic() - begun)
for thread in threads[1:]:
    thread.join(max(0, begun + waits - time.monotonic()))
print(json.dumps([address for address in sys.argv[1:] if reached.get(address)]), flush=True)
os._exit(0)
"""
"""Connects to all addresses. The time for the first one determines the timeout of the others."""


@dataclass(frozen=True)
class Machine:
    """The engine's machine: `namespace` is its network."""

    namespace: str
    docker_host: str
    image: str
    environment: Mapping[str, str]

    def run(self, *program: str, **variables: str) -> str:
        """Run a program on this machine; return what it prints."""
        done = subprocess.run(
            [*in_namespace(self.namespace), *program],
            env={**self.environment, "DOCKER_HOST": self.docker_host, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, program: str, **variables: str) -> str:
        return self.run(sys.executable, "-c", program, **variables)

    def reached(self, network: str, addresses: Sequence[str]) -> set[str]:
        """Return the addresses to which a container can connect in a network; the first must be reachable."""
        with self.container(network, ["python3", "-c", REACH, *addresses]) as (client, name):
            client.wait(name)
            printed = client.logs(name, stdout=True, stderr=False)
        return set(json.loads(printed))

    @contextmanager
    def container(self, network: str, command: Sequence[str]) -> Iterator[tuple[APIClient, str]]:
        client, name = APIClient(base_url=self.docker_host), f"container-{uuid.uuid4().hex[:8]}"
        client.create_container(
            self.image, list(command), name=name, host_config=client.create_host_config(network_mode=network)
        )
        try:
            client.start(name)
            yield client, name
        finally:
            client.remove_container(name, force=True)
            client.close()

    @contextmanager
    def listening_container(self, network: str) -> Iterator[str]:
        """Run a container that listens; yield its address."""
        with self.container(network, ["python3", "-c", LISTEN]) as (client, name):
            while b"listening" not in client.logs(name):
                time.sleep(0.05)
            described: Any = client.inspect_container(name)
            yield described["NetworkSettings"]["Networks"][network]["IPAddress"]


def in_namespace(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}"]


@contextmanager
def machine(directory: Path, environment: Mapping[str, str]) -> Iterator[Machine]:
    """Create the machine, and a neighbour with the addresses above."""
    here, there = (f"longshore-{side}-{uuid.uuid4().hex[:6]}" for side in ("here", "there"))
    with ExitStack() as stack:
        for name in (here, there):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "outside", "netns", here, "type", "veth", "peer", "name", "outside", "netns", there)
        _ip("-n", here, "address", "add", f"{MACHINE}/24", "dev", "outside")
        for address in (f"{INTERNET}/24", f"{PRIVATE}/32", f"{METADATA}/32"):
            _ip("-n", there, "address", "add", address, "dev", "outside")
        for name in (here, there):
            _ip("-n", name, "link", "set", "outside", "up")
            stack.enter_context(_listening(name))
        _ip("-n", here, "route", "add", "default", "via", INTERNET)
        docker_host = stack.enter_context(private_engine(directory, network_namespace=here))
        yield Machine(here, docker_host, ensure_python_base(docker_host), environment)


@contextmanager
def _listening(namespace: str) -> Iterator[None]:
    with subprocess.Popen(
        [*in_namespace(namespace), sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        try:
            yield
        finally:
            server.kill()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
