"""How a `registry_url` is written (contract: registries), and why one that is not written so is refused.

Where a registry is: its scheme, host, port and path, and the spellings that others know it by.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from shared.net.address_rules import is_loopback_host, passes_for_an_address
from shared.net.origins import DEFAULT_PORTS

MAX_LENGTH = 128
"""Characters of a `registry_url`."""

PATH_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
"""One part of a repository name (distribution spec: pulling manifests, the grammar of `<name>`)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?P<colon>:(?P<port>[^:]*))?")

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", DOCKER_HUB_API}


class InvalidAddressError(ValueError):
    """A `registry_url` that cannot be used; the text is a sentence that says why and what to write."""


def refuse_unusable_characters(url: str) -> None:
    """Refuse what no address holds, wherever in it it stands."""
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
    for character, sentence in {
        "@": "registry_url holds a user or password: give them as registry_username and registry_password.",
        "?": "registry_url holds a query (?…): it names a host and a path only.",
        "#": "registry_url holds a fragment (#…): it names a host and a path only.",
        "\\": "registry_url holds a backslash: separate the parts of the path with /.",
        "%": "registry_url holds a percent escape: a registry's host and path need none.",
    }.items():
        if character in url:
            raise InvalidAddressError(sentence)


def split_scheme(url: str) -> tuple[str | None, str]:
    """The scheme, where one was written, and what follows it."""
    found = _SCHEME.match(url)
    if not found:
        return None, url
    scheme = found[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise InvalidAddressError(
            "registry_url begins with a scheme that registries do not speak: write https:// or nothing."
        )
    return scheme, url[found.end() :]


def split_authority(authority: str) -> tuple[str, int | None]:
    """The host, lower-cased, and the port where one was written."""
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        raise InvalidAddressError(
            "registry_url's host is none: an IPv6 address stands in brackets, such as [::1]:5000."
        )
    host = found["host"].lower()
    _refuse_bad_host(host)
    port = _port(found["port"]) if found["colon"] else None
    if port is None and not names_a_registry(host):
        raise InvalidAddressError(
            f"registry_url's host '{host}' has neither a dot nor a port and is not localhost: the Docker engine would "
            f"take it for a name on Docker Hub and send the image there. Write the whole host name, or {host}:443."
        )
    return host, port


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise InvalidAddressError("registry_url's port must be a number from 1 to 65535.")
    return int(text)


def _refuse_bad_host(host: str) -> None:
    if not host:
        raise InvalidAddressError("registry_url has no host.")
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise InvalidAddressError("registry_url's host is no IPv6 address between its brackets.") from None
        return
    labels = host.split(".")
    if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise InvalidAddressError(
            "registry_url's host is no host name: its parts are letters, digits and hyphens between dots, "
            "and none is empty, longer than 63 characters, or begins or ends with a hyphen."
        )
    if passes_for_an_address(host):
        raise InvalidAddressError(
            "registry_url's host looks like an IPv4 address but is none: write four numbers from 0 to 255."
        )


def names_a_registry(host: str) -> bool:
    """Whether the engine takes a bare `host` in front of a repository for a registry, not for a Docker Hub name."""
    return "." in host or ":" in host or host == "localhost"


def known_as(host: str, path: str) -> tuple[str, str]:
    """Docker Hub under its one name; its login address `https://index.docker.io/v1/` is the registry itself."""
    if host not in _DOCKER_HUB_NAMES:
        return host, path
    return DOCKER_HUB, "" if path.rstrip("/") in {"v1", "v2"} else path


def refuse_bad_path(path: str) -> None:
    """Refuse a path that no repository's name can begin with."""
    if not path:
        return
    for segment in path.split("/"):
        if not segment:
            raise InvalidAddressError("registry_url's path has an empty part (//).")
        if segment in {".", ".."}:
            raise InvalidAddressError(f"registry_url's path has a part '{segment}'.")
        if segment != segment.lower():
            raise InvalidAddressError(
                f"registry_url's path has upper case in '{segment}', which no registry takes in a repository name: "
                f"write '{segment.lower()}' if that is its name."
            )
        if not PATH_SEGMENT.fullmatch(segment):
            raise InvalidAddressError(
                f"registry_url's path has a part '{segment}' that no repository name may have: letters and digits, "
                "with single dots, one or two underscores, or hyphens between them."
            )


__all__ = ["InvalidAddressError", "RegistryAddress"]


@dataclass(frozen=True)
class RegistryAddress:
    """A registry's scheme, host, port and the path in front of every repository in it."""

    scheme: str
    """`https` or `http`."""
    host: str
    """Lower-cased; an IPv6 address stands in brackets; every name of Docker Hub is `docker.io`."""
    port: int | None
    """As it was written; `None` where none was."""
    path: str
    """Empty or `a/b`: no slash at either end."""
    scheme_given: bool = False
    """Whether a caller chose the scheme; where nobody did, a loopback registry may turn out to speak plain HTTP."""

    @classmethod
    @lru_cache(maxsize=4096)  # each call of an algorithm asks it of a few that seldom change
    def parse(cls, registry_url: str, plain_http: bool | None = None) -> "RegistryAddress":
        """Read what a caller wrote.

        `plain_http` may be true for an `http://` URL or a loopback host only; an `http://` URL means plain HTTP
        even where the option was left out.

        Raises:
            InvalidAddressError: with a sentence for the caller; it never repeats a password or a query.
        """
        refuse_unusable_characters(registry_url)
        scheme, rest = split_scheme(registry_url)
        authority, slash, path = rest.partition("/")
        host, port = split_authority(authority)
        host, path = known_as(host, path)
        if slash:
            path = path.removesuffix("/")
            refuse_bad_path(path)
        address = cls(scheme or "https", host, port, path, scheme_given=scheme is not None)
        return address.over_plain_http() if plain_http else address

    def over_plain_http(self) -> "RegistryAddress":
        """The same registry spoken to in plain HTTP.

        Raises:
            InvalidAddressError: the scheme was chosen to be https, or the host is another machine.
        """
        if self.scheme == "https" and self.scheme_given:
            raise InvalidAddressError("plain_http contradicts the https:// in registry_url: leave one of them out.")
        if self.scheme == "https" and not self.is_loopback:
            raise InvalidAddressError(
                "plain_http is for a registry on this machine or a registry_url that begins with http://: "
                f"write http://{self} if the registry really speaks plain HTTP."
            )
        return RegistryAddress("http", self.host, self.port, self.path, scheme_given=True)

    @property
    def authority(self) -> str:
        """`host[:port]` as it was written: what an image reference begins with."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host:port` to send requests to; the port is always named, Docker Hub is its API's host."""
        host = DOCKER_HUB_API if self.host == DOCKER_HUB else self.host
        return f"{self.scheme}://{host}:{self._effective_port}"

    @property
    def place(self) -> str:
        """`host[:port][/path]` in one spelling, for comparing: equal places are one registry.

        The scheme is left out, since an image reference has none; a port is named unless it is 443, and always
        where the host alone would be taken for a Docker Hub name.
        """
        bare = self._effective_port == DEFAULT_PORTS["https"] and names_a_registry(self.host)
        authority = self.host if bare else f"{self.host}:{self._effective_port}"
        return f"{authority}/{self.path}" if self.path else authority

    @property
    def plain_http(self) -> bool:
        """Whether requests go unencrypted because a caller chose so."""
        return self.scheme == "http"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by its very name: `localhost`, 127.0.0.0/8 or `[::1]`."""
        return is_loopback_host(self.host)

    def __str__(self) -> str:
        scheme = f"{self.scheme}://" if self.scheme_given else ""
        return f"{scheme}{self.authority}/{self.path}" if self.path else f"{scheme}{self.authority}"

    @property
    def _effective_port(self) -> int:
        return DEFAULT_PORTS[self.scheme] if self.port is None else self.port
