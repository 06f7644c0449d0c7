"""Headers between gateway and services: the public URL, the address of a client, and the owner of its key."""

import hashlib
import ipaddress
import re
from functools import cache

from flask import request
from werkzeug.wrappers import Request

from shared.settings import settings

_LOOPBACK = re.compile(r"(?:localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\])(?::[0-9]{1,5})?")
OWNER_HEADER = "X-Longshore-Owner"
"""In the response of a service: `owner_tag` of the request's key. The gateway removes it."""


def owner_tag(owner: str) -> str:
    """Return the value of `OWNER_HEADER` for an owner. By it the gateway counts all keys of an owner together."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def public_url() -> str:
    """Return the URL that links and clone URLs begin with: the setting, or else the address of the gateway.

    The client chooses the header `Host`, so it is used only if it names this machine: such a link leads to no other
    machine, and it works through a tunnel to this one.
    """
    if not settings().public_url and _LOOPBACK.fullmatch(request.host):
        return request.host_url.rstrip("/")
    return settings().resolved_public_url


def client_address(received: Request) -> str | None:
    """Return the address that a request came from: its peer, or what our gateway reports if that is the peer.

    The gateway and each proxy append the address of their peer to X-Forwarded-For. The client is the last address that
    is no trusted proxy; the client itself can have written everything left of it.
    """
    peer, forwarded = received.remote_addr, received.headers.get("X-Forwarded-For")
    if peer is None or not forwarded or not is_in(peer, settings().gateway_networks):
        return peer
    return last_untrusted_hop(forwarded, settings().trusted_proxies)


def last_untrusted_hop(forwarded: str, trusted: tuple[str, ...]) -> str:
    """Return the last address in X-Forwarded-For that is no trusted proxy; the first one if all are."""
    hops = [hop.strip() for hop in forwarded.split(",")]
    return next((hop for hop in reversed(hops) if not is_in(hop, trusted)), hops[0])[:64]


def client_network(address: str) -> str:
    """Return what one client can send from: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def is_in(address: str, networks: tuple[str, ...]) -> bool:
    """Return whether an address is in one of these networks. An invalid address is in none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    unmapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(unmapped in network for network in _parse_networks(networks))


@cache
def _parse_networks(entries: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(entry) for entry in entries)
