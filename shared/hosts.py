"""Hosts as addresses name them: what one is by its very spelling, before any name is resolved."""

import ipaddress
import re

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def is_address(host: str) -> bool:
    """Whether a host is an address, IPv6 with or without brackets, and no name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Whether a host (a name or an address) is this machine by its very name."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def passes_for_an_address(host: str) -> bool:
    """Whether a host is no IPv4 address but one to inet_aton, as 127.1 and 0x7f.1 are: it would turn out elsewhere."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None and not is_address(host)
