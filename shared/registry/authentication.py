"""Authentication at a registry: Basic, or Bearer tokens from the token server that its 401 names.

Follows RFC 9110 section 11.6.1, RFC 6750 section 3, and the distribution project's token and OAuth2 specifications
(docs: spec/auth/token, spec/auth/oauth).
"""

import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from shared.errors import ErrorClass, WorkError
from shared.net.http import HttpTransport
from shared.net.origins import host_of, is_target_allowed, origin_of
from shared.net.responses import Response
from shared.numbers import whole_number
from shared.registry.credentials import Credentials
from shared.registry.errors import error_from_response

_TOKEN_RULE = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the `token` of RFC 9110's grammar
_CHALLENGE_PART = re.compile(
    rf"[\s,]*(?:(?P<key>{_TOKEN_RULE})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,\"]*))"
    rf"|(?P<scheme>{_TOKEN_RULE}))"
)
_MAX_HEADER_LENGTH = 8192
_VALID_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_CLIENT_ID = "longshore"
_DEFAULT_LIFETIME_SECONDS = 60.0
"""How long a token is valid if its server does not say (token spec: `expires_in`)."""
_MAX_LIFETIME_SECONDS = 3600.0
_MAX_RENEWAL_MARGIN_SECONDS = 10.0
"""A token is renewed this long before it expires, or after four fifths of a short lifetime."""


@dataclass(frozen=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header."""

    scheme: str
    """Lower case: `basic`, `bearer`."""
    parameters: dict[str, str] = field(default_factory=dict)
    """By name in lower case: `realm`, `service`, `scope`."""


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges of a `WWW-Authenticate` header, in order, up to the first syntax error."""
    challenges: list[Challenge] = []
    position, header = 0, header[:_MAX_HEADER_LENGTH]
    while part := _CHALLENGE_PART.match(header, position):
        position = part.end()
        if part["scheme"]:
            challenges.append(Challenge(part["scheme"].lower()))
        elif challenges:
            quoted = part["quoted"]
            value = part["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            challenges[-1].parameters.setdefault(part["key"].lower(), value)
    return challenges


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    """By the monotonic clock."""


class Authenticator:
    """Keeps the challenge of one registry, and its tokens by scope. Thread-safe: one thread gets a token for all."""

    def __init__(self, token_http: HttpTransport, host: str, credentials: Credentials | None) -> None:
        self._lock = threading.RLock()
        self._http = token_http
        self._host = host
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._registry_origin = ""
        self._scopes: dict[str, list[str]] = {}
        self._tokens: dict[str, _Token] = {}

    @property
    def was_challenged(self) -> bool:
        return self._challenge is not None

    @property
    def secrets(self) -> set[str]:
        """Passwords and tokens that must not appear in messages."""
        with self._lock:
            secrets = {token.value for token in self._tokens.values()}
        if self._credentials:
            secrets |= {self._credentials.password, self._credentials.basic.removeprefix("Basic ")}
        return secrets

    def authorization(self, scope: str) -> str | None:
        """Return the `Authorization` header for a request in `scope`; None before the first challenge.

        Raises:
            WorkError: the token server refused the credentials or did not answer.
        """
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return self._basic()
            token = self._tokens.get(scope)
            if token is None or token.renew_at <= time.monotonic():
                token = self._tokens[scope] = self._request_token(self._challenge, scope)
            return f"Bearer {token.value}"

    def handle_challenge(self, response: Response, scope: str, refused: str | None) -> str | None:
        """Return a new `Authorization` header after a 401 of the registry itself; None if there is no other.

        `refused` is the header that the registry refused. If another thread has got a newer token meanwhile, that is
        returned. The refused header is never sent again, because accounts are locked after some wrong passwords.

        Raises:
            WorkError: as `authorization`; or the URL of the token server is not allowed.
        """
        challenges = {
            each.scheme: each for each in reversed(parse_challenges(response.headers.get("WWW-Authenticate", "")))
        }
        # Bearer is preferred, because its tokens have fewer rights than the password.
        challenge = challenges.get("bearer") or challenges.get("basic")
        if challenge is None:
            return None
        with self._lock:
            self._challenge = challenge
            self._registry_origin = origin_of(response.url) or ""
            token = self._tokens.get(scope)
            if token is not None and f"Bearer {token.value}" == refused:
                del self._tokens[scope]
            self._scopes[scope] = list(dict.fromkeys([*scope.split(), *challenge.parameters.get("scope", "").split()]))
            authorization = self.authorization(scope)
        return None if authorization == refused else authorization

    def _basic(self) -> str | None:
        if self._credentials is not None and self._credentials.is_identity_token:
            raise WorkError(
                ErrorClass.AUTH,
                f"{self._host} requires a username and a password; it does not accept an identity token.",
            )
        return self._credentials.basic if self._credentials else None

    def _request_token(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not is_target_allowed(self._registry_origin, realm):
            raise WorkError(
                ErrorClass.INVALID,
                f"{self._host} names {host_of(realm)} as its token server, where credentials are not sent: a token "
                "server must use https, or be at the registry's own scheme, host and port.",
            )
        parameters = [("scope", each) for each in self._scopes.get(scope, scope.split())]
        service = challenge.parameters.get("service")
        if service:
            parameters.insert(0, ("service", service))
        document = self._ask_token_server(realm, [("client_id", _CLIENT_ID), *parameters]).json_object()
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _VALID_TOKEN.fullmatch(value):
            raise WorkError(
                ErrorClass.INVALID, f"{host_of(realm)}, the token server of {self._host}, answered without a token."
            )
        lifetime = min(whole_number(document.get("expires_in")) or _DEFAULT_LIFETIME_SECONDS, _MAX_LIFETIME_SECONDS)
        return _Token(value, time.monotonic() + lifetime - min(_MAX_RENEWAL_MARGIN_SECONDS, lifetime / 5))

    def _ask_token_server(self, realm: str, parameters: list[tuple[str, str]]) -> Response:
        credentials = self._credentials
        if credentials is not None and credentials.is_identity_token:
            # OAuth2 has one `scope` with spaces in it; the older protocol repeats it (RFC 6749 section 3.3).
            scopes = " ".join(value for name, value in parameters if name == "scope")
            other = [(name, value) for name, value in parameters if name != "scope"]
            form = [("grant_type", "refresh_token"), ("refresh_token", credentials.password), *other, ("scope", scopes)]
            response = self._http.request(
                "POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()
            )
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            parts = urlsplit(realm)
            query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *parameters])
            response = self._http.request("GET", parts._replace(query=query, fragment="").geturl(), headers)
        if response.status == 200:
            return response
        error = error_from_response(
            host_of(response.url),
            response,
            f"giving a token for {self._host}",
            with_credentials=credentials is not None,
            secrets=self.secrets,
        )
        if response.method == "POST" and response.status == 400:
            # RFC 6749 section 5.2: a refused refresh token is a 400, invalid_grant.
            raise WorkError(ErrorClass.AUTH, f"{error.message} The identity token may have expired: give a new one.")
        raise error
