"""How a `registry_url` is written (contract: registries), and why one that is not written so is refused."""

import ipaddress
import re

from shared.hosts import passes_for_an_address

MAX_LENGTH = 128
"""Characters of a `registry_url`."""

PATH_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
"""One part of a repository name (distribution spec: pulling manifests, the grammar of `<name>`)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?P<colon>:(?P<port>[^:]*))?")
DEFAULT_PORTS = {"https": 443, "http": 80}

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", DOCKER_HUB_API}


class InvalidAddressError(ValueError):  # noqa: N818 - reads as what it says
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
        raise InvalidAddressError("registry_url's host is none: an IPv6 address stands in brackets, such as [::1]:5000.")
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
