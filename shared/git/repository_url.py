"""Parse and check the URLs of repositories that callers give, before git gets them."""

import re
from dataclasses import dataclass

from typing_extensions import override

from shared.errors import InvalidValueError
from shared.net.address_rules import is_legacy_ipv4
from shared.numbers import whole_number

MAX_URL = 512
"""Characters; the length of the column."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SEGMENT = re.compile(r"[A-Za-z0-9._~+@=,:!$&'()*;-]+")
_SCP = re.compile(r"(?:(?P<user>[^@/:]*)@)?(?P<host>[^@/:]+):(?P<path>[^/:].*|/.*)")
_ESCAPE = re.compile(r"%(..?|$)")
_HARMFUL_ESCAPES = frozenset(b"/\\%.?#@:&'\"\x7f") | frozenset(range(0x20))


class InvalidRepositoryUrlError(InvalidValueError):
    """Raised for a URL that is rejected. The text is a sentence that never contains a password."""


@dataclass(frozen=True)
class RepositoryUrl:
    """An https, ssh or (where allowed) http URL. `str` gives its normal form."""

    scheme: str
    host: str
    path: str
    """Begins with a slash; percent-escapes are kept unchanged."""
    user: str | None = None
    """For ssh only."""
    port: int | None = None

    @classmethod
    def parse(cls, text: str, *, allow_http: bool = False, allow_ssh: bool = True) -> "RepositoryUrl":
        """Parse a URL; git's short form `git@host:path` becomes `ssh://git@host/path`.

        Raises:
            InvalidRepositoryUrlError: it is no such URL, or git or a server could read it differently.
        """
        if len(text) > MAX_URL:
            raise InvalidRepositoryUrlError(f"A repository's URL has at most {MAX_URL} characters.")
        if not text.isascii() or any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
            raise InvalidRepositoryUrlError(
                "A repository's URL cannot hold spaces, control characters or letters beyond ASCII."
            )
        scheme, separator, rest = text.partition("://")
        if not separator:
            return cls._parse_scp(text, allow_ssh)
        scheme = scheme.lower()
        _check_scheme(scheme, allow_http, allow_ssh)
        if "?" in rest or "#" in rest:
            raise InvalidRepositoryUrlError("A repository's URL cannot have a query or a fragment.")
        authority, slash, path = rest.partition("/")
        user, host, port = _split_authority(authority, scheme)
        return cls(scheme, host, _check_path(slash + path, escapes=scheme != "ssh"), user, port)

    @classmethod
    def _parse_scp(cls, text: str, allow_ssh: bool) -> "RepositoryUrl":
        match = _SCP.fullmatch(text)
        if match is None or "::" in text:
            raise InvalidRepositoryUrlError(
                "A repository's URL begins with https:// or ssh://, or is like git@host:path."
            )
        _check_scheme("ssh", allow_http=False, allow_ssh=allow_ssh)
        return cls(
            "ssh",
            _check_host(match["host"]),
            _check_path("/" + match["path"].removeprefix("/"), escapes=False),
            None if match["user"] is None else _check_user(match["user"]),
        )

    @override
    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{user}{self.host}{port}{self.path}"


def _check_scheme(scheme: str, allow_http: bool, allow_ssh: bool) -> None:
    if scheme == "https" or (scheme == "http" and allow_http) or (scheme == "ssh" and allow_ssh):
        return
    if scheme == "http":
        raise InvalidRepositoryUrlError(
            "Repositories at plain http:// URLs are not allowed here; use https:// (LONGSHORE_SOURCE_ALLOW_HTTP)."
        )
    if scheme == "ssh":
        raise InvalidRepositoryUrlError(
            "Repositories at ssh:// URLs are not set up here; use https:// (LONGSHORE_SOURCE_SSH_KNOWN_HOSTS)."
        )
    raise InvalidRepositoryUrlError("A repository's URL begins with https:// or ssh://, or is like git@host:path.")


def _split_authority(authority: str, scheme: str) -> tuple[str | None, str, int | None]:
    user, at, host_and_port = authority.rpartition("@")
    if at and (scheme != "ssh" or ":" in user):
        raise InvalidRepositoryUrlError(
            "A repository's URL cannot hold credentials; give them as source.credentials {username, password}."
        )
    host, bracket, rest = host_and_port.partition("]")
    host, colon, port = (host + bracket, rest[:1], rest[1:]) if bracket else host_and_port.partition(":")
    number = whole_number(port, 65_535)
    if colon not in ("", ":") or (colon and not number):
        raise InvalidRepositoryUrlError("The port in a repository's URL is a number from 1 to 65535.")
    return (_check_user(user) if at else None), _check_host(host), (number if colon else None)


def _check_user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise InvalidRepositoryUrlError(
            "The user in a repository's URL consists of letters, digits, '.', '_' and '-', and begins with no '-'."
        )
    return user


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host) or ".." in host:
        raise InvalidRepositoryUrlError("The host in a repository's URL is a host name or an address.")
    if is_legacy_ipv4(host):
        raise InvalidRepositoryUrlError("The host in a repository's URL looks like an IPv4 address but is none.")
    return host.lower()


def _check_path(path: str, *, escapes: bool) -> str:
    for escape in _ESCAPE.findall(path):
        if not escapes:
            raise InvalidRepositoryUrlError("An ssh:// URL cannot hold percent-escapes.")
        if not re.fullmatch(r"[0-9A-Fa-f]{2}", escape) or int(escape, 16) in _HARMFUL_ESCAPES:
            raise InvalidRepositoryUrlError(f"The repository's URL cannot hold the percent-escape %{escape}.")
    segments = path.removeprefix("/").removesuffix("/").split("/")
    for segment in segments:
        if segment in ("", ".", "..") or segment[0] == "-" or not _SEGMENT.fullmatch(_ESCAPE.sub("_", segment)):
            raise InvalidRepositoryUrlError(
                "The path in a repository's URL has names between single slashes: none of them empty, '.' or '..', "
                "none that begins with '-', and none with quotes, backslashes or brackets."
            )
    return "/" + "/".join(segments)
