"""Addresses: under which one callers know this installation, and from which one a caller comes."""

import ipaddress
from functools import cache

from flask import request
from werkzeug.wrappers import Request

from shared.settings import settings


def public_url() -> str:
    """Where links lead: the setting, else what the request was sent to."""
    return settings().public_url.rstrip("/") or request.host_url.rstrip("/")


def caller_address(asked: Request) -> str | None:
    """Where a request came from: its peer, or where that is our gateway, whom the gateway and trusted proxies say.

    The gateway appends to X-Forwarded-For whom it spoke to; from the right, the first that is no trusted proxy is the
    caller. What stands left of it the caller may have written himself.
    """
    peer, forwarded = asked.remote_addr, asked.headers.get("X-Forwarded-For")
    if peer is None or not forwarded or not is_in(peer, settings().gateway_networks):
        return peer
    hops = [hop.strip() for hop in forwarded.split(",")]
    strangers = [hop for hop in hops if not is_in(hop, settings().trusted_proxies)]
    return (strangers[-1] if strangers else hops[0])[:64]


def is_in(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address is in one of these networks; what is no address is in none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(plain in network for network in _networks(networks))


@cache
def _networks(entries: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(entry) for entry in entries)
