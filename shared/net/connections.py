"""Connections to the addresses that a host stands for, each of them checked; or through an HTTP proxy."""

import base64
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks, ForbiddenAddressError

ANYWHERE = AllowedNetworks.parse("", ("0.0.0.0/0", "::/0"))
"""Where a proxy may be that an operator chose. What is never spoken to never is."""
_HOST = re.compile(r"[A-Za-z0-9._:-]+")


class InvalidProxyError(ValueError):
    """A `proxy_url` that cannot be used; the text is a sentence that repeats no password."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy (RFC 9110 section 3.7): asked by its own form of request, or by CONNECT for TLS."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`Proxy-Authorization`, where it wants a password."""
    networks: AllowedNetworks = ANYWHERE
    """Where it may be."""

    @classmethod
    def parse(cls, url: str, networks: AllowedNetworks = ANYWHERE) -> "Proxy":
        """Read `http://[USER:PASSWORD@]HOST:PORT`. By default it may be anywhere, as one may that an operator chose.

        Raises:
            InvalidProxyError: it is written otherwise.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not _HOST.fullmatch(host) or port is None or parts.scheme != "http" or parts.path.strip("/") or parts.query:
            raise InvalidProxyError("proxy_url is written http://HOST:PORT: a proxy is spoken to in plain HTTP.")
        if parts.username is None:
            return cls(host, port, networks=networks)
        given = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(given.encode()).decode()}"}
        return cls(host, port, headers, networks)


def is_excepted(host: str, exceptions: Sequence[str]) -> bool:
    """Whether a host is one of those, or below one of those that begin with a dot, that are reached without a proxy."""
    host = host.strip("[]").rstrip(".").lower()
    return any(
        host == entry.lower() or (entry.startswith(".") and host.endswith(entry.lower())) for entry in exceptions
    )


def new_connection(
    origin: str, context: ssl.SSLContext, networks: AllowedNetworks, *, proxy: Proxy | None, seconds: float
) -> HTTPConnection:
    """A connection to an origin (`scheme://host:port`), not open yet; `seconds` for each address and each step of TLS.

    A proxy resolves the host itself, so only what stands in the origin is checked then.
    """
    parts = urlsplit(origin)
    host, port = parts.hostname or "", parts.port
    secure = parts.scheme == "https"
    to_host, to_port = (host, port) if proxy is None else (proxy.host, proxy.port)
    connection = (
        _CheckedTlsConnection(to_host, to_port, timeout=seconds, ssl_context=context)
        if secure
        else _CheckedConnection(to_host, to_port, timeout=seconds)
    )
    connection.networks = networks if proxy is None else proxy.networks
    if proxy is not None:
        _check_words(host, networks)
        if secure:
            connection.set_tunnel(host, port, headers=dict(proxy.headers))
    return connection


def _check_words(host: str, networks: AllowedNetworks) -> None:
    try:
        networks.check_words(host)
    except ForbiddenAddressError as refusal:
        raise WorkError(ErrorClass.INVALID, str(refusal)) from None


class _CheckedConnection(HTTPConnection):
    """A connection to one of the addresses that its host stands for, each of them checked; resolved this one time."""

    networks: AllowedNetworks

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            addresses = self.networks.resolve(name, self.port or 0)
        except ForbiddenAddressError as refusal:
            raise WorkError(ErrorClass.INVALID, str(refusal)) from None
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: NewConnectionError | ConnectTimeoutError | None = None
        for address in addresses:
            # What urllib3 looks up: an address, so there is nothing to look up. Host and certificate stay the name's.
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            finally:
                self._dns_host = name
        raise failure or NewConnectionError(self, "the name stands for no address")


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """The same over TLS."""
