"""The address of a registry: parsed from a `registry_url`, validated, and written in a canonical form."""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from typing_extensions import override

from shared.errors import InvalidValueError
from shared.net.address_rules import is_legacy_ipv4, is_loopback_host
from shared.net.origins import DEFAULT_PORTS

MAX_LENGTH = 128
"""Characters of a `registry_url`."""

PATH_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
"""One part of a repository name (distribution spec: pulling manifests, the grammar of `<name>`)."""

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", DOCKER_HUB_API}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?P<colon>:(?P<port>[^:]*))?")
_FORBIDDEN_CHARACTERS = {
    "@": "registry_url holds a user or password: give them as registry_username and registry_password.",
    "?": "registry_url holds a query (?…): it names a host and a path only.",
    "#": "registry_url holds a fragment (#…): it names a host and a path only.",
    "\\": "registry_url holds a backslash: separate the parts of the path with /.",
    "%": "registry_url holds a percent escape: a registry's host and path need none.",
}


class InvalidAddressError(InvalidValueError):
    """Raised for an invalid `registry_url`. The text is a sentence that says why and what to write."""


@dataclass(frozen=True)
class RegistryAddress:
    """A registry's scheme, host, port, and the path in front of every repository in it."""

    scheme: str
    """`https` or `http`."""
    host: str
    """Lower case; an IPv6 address is in brackets; every name of Docker Hub is `docker.io`."""
    port: int | None
    """As it was written; None if it was not."""
    path: str
    """Empty or `a/b`: no slash at either end."""
    scheme_given: bool = False
    """Whether the URL or `plain_http` chose the scheme. If not, a loopback registry may turn out to use plain HTTP."""

    @classmethod
    @lru_cache(maxsize=4096)  # each call of an algorithm parses a few URLs that seldom change
    def parse(cls, registry_url: str, plain_http: bool | None = None) -> "RegistryAddress":
        """Parse a `registry_url`.

        `plain_http` may only be true for an `http://` URL or a loopback host. An `http://` URL implies it.

        Raises:
            InvalidAddressError: with a sentence that never repeats a password or a query.
        """
        _check_characters(registry_url)
        scheme, rest = _split_scheme(registry_url)
        authority, _, path = rest.partition("/")
        host, port = _split_authority(authority)
        if host in _DOCKER_HUB_NAMES:
            # Docker's login address https://index.docker.io/v1/ is the registry itself.
            host, path = DOCKER_HUB, "" if path.rstrip("/") in {"v1", "v2"} else path
        path = path.removesuffix("/")
        _check_path(path)
        address = cls(scheme or "https", host, port, path, scheme_given=scheme is not None)
        return address.over_plain_http() if plain_http else address

    def over_plain_http(self) -> "RegistryAddress":
        """Return the same registry with the scheme http.

        Raises:
            InvalidAddressError: the URL begins with https://, or the host is another machine.
        """
        if self.scheme == "https" and self.scheme_given:
            raise InvalidAddressError("plain_http contradicts the https:// in registry_url: leave one of them out.")
        if self.scheme == "https" and not self.is_loopback:
            raise InvalidAddressError(
                "plain_http is for a registry on this machine or a registry_url that begins with http://: "
                f"write http://{self} if the registry really uses plain HTTP."
            )
        return RegistryAddress("http", self.host, self.port, self.path, scheme_given=True)

    @property
    def authority(self) -> str:
        """`host[:port]` as it was written: the beginning of an image reference."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host:port` for requests, always with the port; for Docker Hub the host of its API."""
        host = DOCKER_HUB_API if self.host == DOCKER_HUB else self.host
        return f"{self.scheme}://{host}:{self._effective_port}"

    @property
    def canonical(self) -> str:
        """`host[:port][/path]` in one form, for comparisons: equal values are one registry.

        It has no scheme, because an image reference has none. The port is left out if it is 443 and the host alone
        is not read as a name on Docker Hub.
        """
        is_bare = self._effective_port == DEFAULT_PORTS["https"] and _is_registry_host(self.host)
        authority = self.host if is_bare else f"{self.host}:{self._effective_port}"
        return f"{authority}/{self.path}" if self.path else authority

    @property
    def plain_http(self) -> bool:
        """Whether requests are not encrypted because a caller chose so."""
        return self.scheme == "http"

    @property
    def is_loopback(self) -> bool:
        return is_loopback_host(self.host)

    @override
    def __str__(self) -> str:
        scheme = f"{self.scheme}://" if self.scheme_given else ""
        return f"{scheme}{self.authority}/{self.path}" if self.path else f"{scheme}{self.authority}"

    @property
    def _effective_port(self) -> int:
        return DEFAULT_PORTS[self.scheme] if self.port is None else self.port


def _check_characters(url: str) -> None:
    if not url:
        raise InvalidAddressError("registry_url is empty: write the registry's host, such as registry.example.com.")
    if len(url) > MAX_LENGTH:
        raise InvalidAddressError(f"registry_url is longer than {MAX_LENGTH} characters.")
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in url):
        raise InvalidAddressError("registry_url holds a control character (a line break, a tab or the like).")
    if any(character.isspace() for character in url):
        raise InvalidAddressError("registry_url holds a space.")
    if not url.isascii():
        raise InvalidAddressError(
            "registry_url holds a character that is not ASCII: write an internationalised host as xn--…."
        )
    for character, message in _FORBIDDEN_CHARACTERS.items():
        if character in url:
            raise InvalidAddressError(message)


def _split_scheme(url: str) -> tuple[str | None, str]:
    match = _SCHEME.match(url)
    if not match:
        return None, url
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise InvalidAddressError("registry_url has a scheme that registries do not use: write https:// or nothing.")
    return scheme, url[match.end() :]


def _split_authority(authority: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        raise InvalidAddressError("registry_url's host is invalid: write an IPv6 address in brackets: [::1]:5000.")
    host, port = match["host"].lower(), None
    _check_host(host)
    if match["colon"]:
        if not re.fullmatch(r"[0-9]{1,5}", match["port"]) or not 1 <= int(match["port"]) <= 65535:
            raise InvalidAddressError("registry_url's port must be a number from 1 to 65535.")
        port = int(match["port"])
    elif not _is_registry_host(host):
        raise InvalidAddressError(
            f"registry_url's host '{host}' has neither a dot nor a port and is not localhost: the Docker engine would "
            f"read it as a name on Docker Hub and send the image there. Write the whole host name, or {host}:443."
        )
    return host, port


def _check_host(host: str) -> None:
    if not host:
        raise InvalidAddressError("registry_url has no host.")
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise InvalidAddressError("registry_url's host is not an IPv6 address between its brackets.") from None
        return
    if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.split(".")):
        raise InvalidAddressError(
            "registry_url's host is not a host name: its parts are letters, digits and hyphens between dots, "
            "and none is empty, longer than 63 characters, or begins or ends with a hyphen."
        )
    if is_legacy_ipv4(host):
        raise InvalidAddressError(
            "registry_url's host looks like an IPv4 address but is none: write four numbers from 0 to 255."
        )


def _is_registry_host(host: str) -> bool:
    """Return whether the engine reads `host` in front of a repository as a registry, not as a Docker Hub name."""
    return "." in host or ":" in host or host == "localhost"


def _check_path(path: str) -> None:
    for segment in path.split("/") if path else ():
        if not segment:
            raise InvalidAddressError("registry_url's path has an empty part (//).")
        if segment in {".", ".."}:
            raise InvalidAddressError(f"registry_url's path has a part '{segment}'.")
        if segment != segment.lower():
            raise InvalidAddressError(
                f"registry_url's path has upper case in '{segment}', which registries do not accept in a repository "
                f"name: write '{segment.lower()}' if that is its name."
            )
        if not PATH_SEGMENT.fullmatch(segment):
            raise InvalidAddressError(
                f"registry_url's path has a part '{segment}' that no repository name may have: letters and digits, "
                "with single dots, one or two underscores, or hyphens between them."
            )
