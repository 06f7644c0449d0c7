"""Whether the engine can push to a registry as its options ask: what it trusts is set up with it, not per push."""

import ipaddress
import socket
from typing import Any

from shared.registry.address import RegistryAddress
from workers.engine.connection import engine, engine_errors


def tls_refusal(address: RegistryAddress, *, verify_tls: bool, ca_certificate: str | None) -> str | None:
    """The sentence with which a push to this registry through the engine is refused, or None.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    if ca_certificate:
        return (
            "pushes go through the Docker engine, which cannot be given a registry's ca_certificate: install it on "
            f"the engine's machine as /etc/docker/certs.d/{address.authority}/ca.crt and remove the option"
        )
    if (verify_tls and not address.plain_http) or _engine_trusts_blindly(address):
        return None
    what = "use plain HTTP" if address.plain_http else "skip the verification of TLS"
    return (
        f"pushes go through the Docker engine, which cannot be told per registry to {what}: add "
        f'"{address.authority}" to insecure-registries in the engine\'s daemon.json and restart it'
    )


def _engine_trusts_blindly(address: RegistryAddress) -> bool:
    with engine_errors():
        configuration: dict[str, Any] = engine().info().get("RegistryConfig") or {}
    known = (configuration.get("IndexConfigs") or {}).get(address.authority)
    if known is not None:
        return not known.get("Secure", True)
    networks = [ipaddress.ip_network(text) for text in configuration.get("InsecureRegistryCIDRs") or []]
    return any(found in network for found in _addresses(address.host) for network in networks)


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What the name stands for; the engine asks the resolver too, and trusts blindly if any of them is in its list."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
