"""Where a registry is: its scheme, host, port and path, and the spellings that others know it by."""

from dataclasses import dataclass
from functools import lru_cache

from shared.hosts import is_loopback_host
from shared.registry.address_grammar import (
    DEFAULT_PORTS,
    DOCKER_HUB,
    DOCKER_HUB_API,
    InvalidAddressError,
    known_as,
    names_a_registry,
    refuse_bad_path,
    refuse_unusable_characters,
    split_authority,
    split_scheme,
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
