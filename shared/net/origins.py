"""Origins of URLs, and the rules where a registry may send a client."""

import ipaddress
import re
from urllib.parse import urlsplit

from shared.net.address_rules import is_legacy_ipv4, is_loopback_host

DEFAULT_PORTS = {"https": 443, "http": 80}
_INVALID_CHARACTER = re.compile(r"[^\x21-\x7e]|\\")


def origin_of(url: str) -> str | None:
    """Return `scheme://host:port` of an absolute http(s) URL without user and password; None for anything else."""
    if _INVALID_CHARACTER.search(url):
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


def path_of(url: str) -> str:
    """Return the path and query of a URL, as they stand in a request."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def host_of(url: str) -> str:
    """Return the host of a URL for a message, with its port unless that is the default one. It holds no secret."""
    origin = origin_of(url)
    if origin is None:
        return "an invalid URL"
    scheme, _, authority = origin.partition("://")
    return authority.removesuffix(f":{DEFAULT_PORTS[scheme]}")


def is_target_allowed(registry_origin: str, url: str) -> bool:
    """Return whether a registry may have a client send credentials or layers to `url`: a token server, an upload.

    `url` must be of the registry's own origin, or https. Another port or scheme of its host is another server, which
    may belong to somebody else.
    """
    if origin_of(url) == origin_of(registry_origin):
        return origin_of(url) is not None
    return urlsplit(url).scheme == "https" and is_redirect_allowed(registry_origin, url)


def is_redirect_allowed(registry_origin: str, url: str) -> bool:
    """Return whether a registry may redirect a read to `url`, to which no credentials are sent.

    `url` must be https, unless the registry itself uses plain HTTP and `url` is on its host or on this machine.
    A registry elsewhere may not send a client to this machine or to a link-local address (metadata services).
    """
    if origin_of(url) is None:
        return False
    source, target = urlsplit(registry_origin), urlsplit(url)
    source_host, target_host = source.hostname or "", target.hostname or ""
    if source_host == target_host or (is_loopback_host(source_host) and is_loopback_host(target_host)):
        return target.scheme == "https" or source.scheme == "http"
    return target.scheme == "https" and not _is_local(target_host)


def _is_local(host: str) -> bool:
    """Return whether a host is this machine, an address that is only valid on its own link, or hides an address."""
    host = host.rstrip(".")
    if is_loopback_host(host) or host.endswith(".localhost") or is_legacy_ipv4(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return bool(plain.is_loopback or plain.is_link_local or plain.is_unspecified)
