"""Whose an address is: where a registry may send us, and with what it may not."""

import ipaddress
import re
from urllib.parse import urlsplit

from shared.net.address_rules import is_loopback_host

DEFAULT_PORTS = {"https": 443, "http": 80}
_UNUSABLE = re.compile(r"[^\x21-\x7e]|\\")


def origin_of(url: str) -> str | None:
    """`scheme://host:port` of an absolute http(s) URL without user and password; `None` for anything else."""
    if _UNUSABLE.search(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port if port is not None else DEFAULT_PORTS[parts.scheme]}"


def host_of(url: str) -> str:
    """A URL's host, with its port unless it is the usual one: for a message, without all that could be secret."""
    origin = origin_of(url)
    if origin is None:
        return "an address that is none"
    scheme, _, authority = origin.partition("://")
    return authority.removesuffix(f":{DEFAULT_PORTS[scheme]}")


def may_lead_to(registry_origin: str, url: str) -> bool:
    """Whether a registry may send us to `url`, for a token or by a redirect.

    Only over HTTPS, unless the registry itself is spoken to in plain HTTP and `url` stays on its host or on this
    machine; and never from elsewhere to this machine or to a link-local address, where clouds keep their own secrets.
    """
    if origin_of(url) is None:
        return False
    here, there = urlsplit(registry_origin), urlsplit(url)
    from_host, to_host = here.hostname or "", there.hostname or ""
    stays = from_host == to_host or (is_loopback_host(from_host) and is_loopback_host(to_host))
    if stays:
        return there.scheme == "https" or here.scheme == "http"
    return there.scheme == "https" and not _is_nobody_elses(to_host)


def _is_nobody_elses(host: str) -> bool:
    """Whether a host is this machine, or an address that means something on this machine's own link only."""
    if is_loopback_host(host) or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return bool(plain.is_loopback or plain.is_link_local or plain.is_unspecified)
