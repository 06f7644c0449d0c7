"""Longshore's own networks on a Docker engine, from which builds and algorithms reach the public internet only.

The engine isolates the containers of such a network from each other. Firewall rules of this machine deny them the
machine itself, link-local and metadata addresses, and private networks. The rules are in the table `mangle`, before the
engine's own rules and before addresses are translated. They are written again whenever a container starts, because a
restarted engine or firewall may have dropped them.
"""

import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from docker.errors import APIError, NotFound

from shared.net.address_rules import FORBIDDEN_NETWORKS, PRIVATE_NETWORKS, Network
from shared.settings import settings
from workers.docker.connection import engine, engine_address, engine_errors

BRIDGES = {"longshore-builds": "br-longshore-b", "longshore-serving": "br-longshore-s"}
"""Longshore's networks, with the names of their interfaces. Builds have a separate one, because the engine lets the
steps of a Dockerfile send any packet."""
DNS_PORT = 53
RESOLVER_FILE = Path("/etc/resolv.conf")
TIMEOUT_SECONDS = 20
_OPTIONS = {"com.docker.network.bridge.enable_icc": "false"}
_BRIDGE_NAME = "com.docker.network.bridge.name"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def ensure_network(name: str) -> None:
    """Create one of Longshore's own networks if the engine does not have it, and write its rules if that is possible.

    No-op for another network, which is the operator's.

    Raises:
        WorkError: the engine does not respond (unavailable), or refuses the network.
    """
    if name not in BRIDGES:
        return
    create_network(name)
    if settings().egress_rules == "worker":
        write_rules(name)


def confinement_problem(name: str) -> str | None:
    """Return why containers of a network can reach private addresses, as a sentence; None if they cannot.

    Raises:
        WorkError: as `ensure_network`.
    """
    if name == "none":
        return None
    if name == "host":
        return "Containers there reach every service of this machine and its network."
    if name not in BRIDGES:
        return "It was not created by Longshore, so there are no rules that deny this machine and private networks."
    create_network(name)
    return write_rules(name) if settings().egress_rules == "worker" else None


def write_rules(name: str) -> str | None:
    """Replace the firewall's rules for one of Longshore's networks; return why that is impossible, as sentences."""
    bridge = BRIDGES[name]
    if not engine_address().startswith("unix:"):
        return _impossible(f"the Docker engine at {engine_address()} may be on another machine")
    if bridge not in {interface for _, interface in socket.if_nameindex()}:
        return _impossible(f"the interface {bridge} is on another machine or in another network namespace")
    try:
        _load("iptables", bridge, egress_rules())
        if Path("/proc/net/if_inet6").exists():
            _load("ip6tables", bridge, ["-j DROP"])
    except FileNotFoundError:
        return _impossible("iptables is not installed")
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr or "").splitlines()
        return _impossible(next(filter(str.strip, lines), str(error)))
    except subprocess.TimeoutExpired:
        return _impossible(f"iptables did not end within {TIMEOUT_SECONDS} s")
    return None


def egress_rules() -> list[str]:
    """Return the rules (iptables-extensions(8)) for a packet that a container sends, in their order."""
    rules = []
    for server in _name_servers():
        rules += [f"-d {server}/32 -p {protocol} --dport {DNS_PORT} -j ACCEPT" for protocol in ("udp", "tcp")]
    rules.append("-m addrtype ! --dst-type UNICAST -j DROP")  # any address of this machine, broadcast, multicast
    rules += [f"-d {network} -j DROP" for network, _ in FORBIDDEN_NETWORKS if network.version == 4]
    rules += [f"-d {network} -j ACCEPT" for network in allowed_networks() if network.version == 4]
    rules += [f"-d {network} -j DROP" for network in PRIVATE_NETWORKS if network.version == 4]
    return rules


def allowed_networks() -> Sequence[Network]:
    """Return the private networks that builds and algorithms may reach (LONGSHORE_EGRESS_NETWORKS)."""
    return [ipaddress.ip_network(network) for network in settings().egress_networks]


def create_network(name: str) -> None:
    """Create one of Longshore's networks; no-op if the engine has it.

    Raises:
        WorkError: the engine does not respond (unavailable), or refuses the network.
    """
    with engine_errors():
        try:
            engine().inspect_network(name)
        except NotFound:
            try:
                engine().create_network(
                    name, driver="bridge", options={**_OPTIONS, _BRIDGE_NAME: BRIDGES[name]}, check_duplicate=True
                )
            except APIError:
                if not engine().networks(names=[name]):  # another worker may have created it at the same time
                    raise


def _impossible(reason: str) -> str:
    return f"Its rules cannot be written: {reason}. Containers there can reach this machine and private networks."


def _name_servers() -> list[str]:
    """Return the IPv4 addresses of this machine's name servers, which the engine's own resolver asks.

    One on a loopback address is asked by the engine itself.
    """
    servers = []
    with suppress(OSError):
        for line in RESOLVER_FILE.read_text().splitlines():
            words = line.split()
            with suppress(ValueError, IndexError):
                if words[0] == "nameserver":
                    address = ipaddress.IPv4Address(words[1])
                    servers += [] if address.is_loopback else [str(address)]
    return servers


def _load(program: str, bridge: str, rules: Sequence[str]) -> None:
    chain = bridge.removeprefix("br-").upper()
    lines = ["*mangle", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), "COMMIT", ""]
    _run(f"{program}-restore", "--noflush", text="\n".join(lines))
    jump = ["PREROUTING", "-i", bridge, "-j", chain]
    try:
        _run(program, "-t", "mangle", "-C", *jump)
    except subprocess.CalledProcessError:
        _run(program, "-t", "mangle", "-I", *jump)


def _run(program: str, *arguments: str, text: str = "") -> None:
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise FileNotFoundError(program)
    wait = () if program.endswith("-restore") else ("--wait", "5")
    subprocess.run(
        [path, *wait, *arguments], input=text, text=True, capture_output=True, check=True, timeout=TIMEOUT_SECONDS
    )
