"""HTTP connections to checked addresses of a host, directly or through an HTTP proxy, and their TLS contexts."""

import base64
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from shared.errors import ErrorClass, InvalidValueError, WorkError
from shared.net.address_rules import AllowedNetworks, ForbiddenAddressError
from shared.net.responses import StrictResponse

ANY_NETWORK = AllowedNetworks.parse("", ("0.0.0.0/0", "::/0"))
"""For a proxy that an operator chose. Addresses that are always forbidden stay forbidden."""
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_MAX_ADDRESSES = 4
"""Addresses of one host that are tried: each may take the whole connect timeout, and the host's owner lists them."""


class InvalidCertificateError(InvalidValueError):
    """Raised for a `ca_certificate` that is not a PEM certificate. The text is a sentence."""


@lru_cache(maxsize=256)
def tls_context(*, verify_tls: bool = True, ca_certificate: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities (or those of `SSL_CERT_FILE`) and `ca_certificate`, a PEM.

    Contexts are shared, because reading the system's authorities from disk takes as long as some pushes.

    Raises:
        InvalidCertificateError: `ca_certificate` holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_certificate:
        try:
            context.load_verify_locations(cadata=ca_certificate)
        except (ssl.SSLError, ValueError, TypeError):
            raise InvalidCertificateError(
                "ca_certificate is not a complete PEM certificate: it must begin with -----BEGIN CERTIFICATE-----."
            ) from None
    if not verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class InvalidProxyError(InvalidValueError):
    """Raised for an invalid `proxy_url`. The text is a sentence without the password."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy (RFC 9110 section 3.7). HTTPS goes through a CONNECT tunnel."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`Proxy-Authorization`, if the URL has a password."""
    networks: AllowedNetworks = ANY_NETWORK

    @classmethod
    def parse(cls, url: str, networks: AllowedNetworks = ANY_NETWORK) -> "Proxy":
        """Read `http://[USER:PASSWORD@]HOST:PORT`.

        Raises:
            InvalidProxyError: it has another form.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not _HOST.fullmatch(host) or port is None or parts.scheme != "http" or parts.path.strip("/") or parts.query:
            raise InvalidProxyError("proxy_url must be http://HOST:PORT: connections to a proxy use plain HTTP.")
        if parts.username is None:
            return cls(host, port, networks=networks)
        user_info = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(
            host, port, {"Proxy-Authorization": f"Basic {base64.b64encode(user_info.encode()).decode()}"}, networks
        )


def is_excepted(host: str, exceptions: Sequence[str]) -> bool:
    """Return whether a host is in `exceptions` (reached without the proxy), or below an entry with a leading dot."""
    host = host.strip("[]").rstrip(".").lower()
    return any(
        host == entry.lower() or (entry.startswith(".") and host.endswith(entry.lower())) for entry in exceptions
    )


def new_connection(
    origin: str, context: ssl.SSLContext, networks: AllowedNetworks, *, proxy: Proxy | None, timeout: float
) -> HTTPConnection:
    """Return a connection to an origin (`scheme://host:port`) that is not open yet.

    `timeout` is in seconds, for each address and for each step of the TLS handshake. A proxy resolves the host itself,
    so the host is then checked without resolving it.

    Raises:
        WorkError: the host is not allowed (invalid). `connect` raises it too.
    """
    parts = urlsplit(origin)
    host, port = parts.hostname or "", parts.port
    is_https = parts.scheme == "https"
    to_host, to_port = (host, port) if proxy is None else (proxy.host, proxy.port)
    connection = (
        _CheckedTlsConnection(to_host, to_port, timeout=timeout, ssl_context=context)
        if is_https
        else _CheckedConnection(to_host, to_port, timeout=timeout)
    )
    connection.networks = networks if proxy is None else proxy.networks
    if proxy is not None:
        try:
            networks.check_unresolved(host)
        except ForbiddenAddressError as error:
            raise WorkError(ErrorClass.INVALID, str(error)) from None
        if is_https:
            connection.set_tunnel(host, port, headers=dict(proxy.headers))
    return connection


class _CheckedConnection(HTTPConnection):
    """A connection that resolves its host once, checks all addresses, and connects to the first one that works."""

    response_class = StrictResponse
    networks: AllowedNetworks

    @override
    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            addresses = self.networks.resolve(name, self.port or 0)
        except ForbiddenAddressError as error:
            raise WorkError(ErrorClass.INVALID, str(error)) from None
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        last_error: NewConnectionError | ConnectTimeoutError | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            # urllib3 resolves `_dns_host`. The Host header and the certificate check still use the name.
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                last_error = error
            finally:
                self._dns_host = name
        raise last_error or NewConnectionError(self, "the name has no address")


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """The same over TLS."""
