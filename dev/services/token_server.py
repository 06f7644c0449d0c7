"""A token server for registries, as the distribution project specifies it.

Source: distribution's documents "Token Authentication Specification", "Token Authentication Implementation" and
"OAuth2 Token Authentication". Accounts have different permissions, so that a read-only account can be tested.
"""

import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from typing_extensions import override

from dev.services.certificates import new_key, self_signed
from dev.services.server_thread import serve_in_thread

if TYPE_CHECKING:
    from cryptography import x509

ISSUER = "longshore-services"
SERVICE = "longshore-services-registry"
_TOKEN_SECONDS = 300
_COORDINATE_BYTES = 32  # r and s of a P-256 signature, RFC 7518 section 3.4

Accounts = Mapping[str, tuple[str, set[str]]]
"""Name to password and the actions allowed on every repository (`pull`, `push`, `delete`)."""


class TokenServer(ThreadingHTTPServer):
    """Responds to GET (basic authentication) and POST (password grant) on /token with a signed token."""

    daemon_threads = True

    def __init__(self, accounts: Accounts) -> None:
        super().__init__(("127.0.0.1", 0), _TokenRequest)
        self._accounts = accounts
        self._key = new_key()
        self.certificate: x509.Certificate = self_signed(self._key, ISSUER)

    @property
    def host(self) -> str:
        """Address and port; tokens are at /token."""
        return f"127.0.0.1:{self.server_port}"

    def has_password(self, name: str, password: str) -> bool:
        expected = self._accounts[name][0] if name in self._accounts else ""
        return bool(expected) and hmac.compare_digest(expected.encode(), password.encode())

    def token(self, name: str, scopes: list[str]) -> str:
        """Return a token for those of the requested actions that the account may do."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": name,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + _TOKEN_SECONDS,
            "jti": secrets.token_hex(16),
            "access": _granted(scopes, self._accounts[name][1]),
        }
        certificate = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES))}"


@contextmanager
def token_server(accounts: Accounts) -> Iterator[TokenServer]:
    """Run a token server on a loopback port during the block, in a thread of this process."""
    server = TokenServer(accounts)
    with serve_in_thread(server):
        yield server


def _granted(scopes: list[str], allowed: set[str]) -> list[dict[str, Any]]:
    granted = []
    for scope in " ".join(scopes).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")  # a name may have the colon of a port
        if kind == "repository" and name:
            granted.append({"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))})
    return granted


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _TokenRequest(BaseHTTPRequestHandler):
    server: TokenServer
    timeout = 10

    def do_GET(self) -> None:
        name, password = self._basic_credentials()
        self._respond(name, password, parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        if form.get("grant_type") != ["password"]:
            self._send(400, {"error": "unsupported_grant_type"})
            return
        self._respond(form.get("username", [""])[0], form.get("password", [""])[0], form)

    def _basic_credentials(self) -> tuple[str, str]:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password

    def _respond(self, name: str, password: str, parameters: dict[str, list[str]]) -> None:
        if urlsplit(self.path).path != "/token":
            self._send(404, {"errors": [{"code": "NOT_FOUND", "message": "tokens are at /token"}]})
            return
        if not self.server.has_password(name, password):
            self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]})
            return
        token = self.server.token(name, parameters.get("scope", []))
        self._send(200, {"token": token, "access_token": token, "expires_in": _TOKEN_SECONDS})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 401:
            self.send_header("WWW-Authenticate", f'Basic realm="{ISSUER}"')
        self.end_headers()
        self.wfile.write(content)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Keep request lines out of the test output."""
