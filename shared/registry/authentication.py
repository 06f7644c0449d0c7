"""What a 401 asks for: the `WWW-Authenticate` header (RFC 9110 section 11.6.1, RFC 6750 section 3).

How a registry comes to believe who asks: Basic, or Bearer tokens from the server that its 401 names.

Follows the distribution project's token and OAuth2 specifications (docs: spec/auth/token, spec/auth/oauth).
"""

import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.http import HttpTransport, Response
from shared.net.origins import host_of, may_lead_to, origin_of
from shared.registry.credentials import Credentials
from shared.registry.errors import error_from_response

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's name for a word
_PART = re.compile(
    rf"[\s,]*(?:(?P<key>{_TOKEN})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,\"]*))|(?P<scheme>{_TOKEN}))"
)
_MAX_HEADER = 8192


@dataclass(frozen=True)
class Challenge:
    """One way in which a server lets itself be convinced."""

    scheme: str
    """Lower-cased: `basic`, `bearer`."""
    parameters: dict[str, str] = field(default_factory=dict)
    """By lower-cased name: `realm`, `service`, `scope`."""


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge in a header's value, in its order; what cannot be read ends the list."""
    challenges: list[Challenge] = []
    position, header = 0, header[:_MAX_HEADER]
    while found := _PART.match(header, position):
        position = found.end()
        if found["scheme"]:
            challenges.append(Challenge(found["scheme"].lower()))
        elif challenges:
            quoted = found["quoted"]
            value = found["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            challenges[-1].parameters.setdefault(found["key"].lower(), value)
    return challenges


_CLIENT_ID = "longshore"
_MIN_LIFETIME_SECONDS = 60.0
"""Seconds that a token lives where its server does not say (token spec: `expires_in`)."""
_MAX_LIFETIME_SECONDS = 3600.0
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,16384}")


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    """By the monotonic clock: a little before its end, so that none ends on its way."""


class Authenticator:
    """Remembers how one registry wants to be convinced, and the tokens it was convinced with, by their scope.

    Several threads may ask at once; one of them gets the token, and the others wait for it.
    """

    def __init__(self, wire: HttpTransport, host: str, credentials: Credentials | None) -> None:
        """`wire` is for the token server, and nobody else's."""
        self._lock = threading.RLock()
        self._http = wire
        self._host = host
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._registry_origin = ""
        self._scopes: dict[str, list[str]] = {}
        self._tokens: dict[str, _Token] = {}

    @property
    def was_challenged(self) -> bool:
        """Whether the registry ever asked who we are."""
        return self._challenge is not None

    @property
    def secrets(self) -> set[str]:
        """What no message may repeat."""
        with self._lock:
            secrets = {token.value for token in self._tokens.values()}
        if self._credentials:
            secrets |= {self._credentials.password, self._credentials.basic.removeprefix("Basic ")}
        return secrets

    def authorization(self, scope: str) -> str | None:
        """The header for a request in `scope` as far as the registry has said what it wants; `None` before that.

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
                token = self._tokens[scope] = self._new_token(self._challenge, scope)
            return f"Bearer {token.value}"

    def handle_challenge(self, refusal: Response, scope: str, refused: str | None) -> str | None:
        """The header that the registry's own 401 asks for, with a token anew; `None` where nothing can be given.

        `refused` is the header that it refused: where another thread has got a newer token meanwhile, that is given.

        Raises:
            WorkError: as `authorization`; or the token server may not be gone to.
        """
        challenge = _best(parse_challenges(refusal.headers.get("WWW-Authenticate", "")))
        if challenge is None:
            return None
        with self._lock:
            self._challenge = challenge
            self._registry_origin = origin_of(refusal.url) or ""
            token = self._tokens.get(scope)
            if token is not None and f"Bearer {token.value}" == refused:
                del self._tokens[scope]
            asked = challenge.parameters.get("scope", "").split()
            self._scopes[scope] = list(dict.fromkeys([*scope.split(), *asked]))
            return self.authorization(scope)

    def close(self) -> None:
        """Close the connection to the token server."""
        self._http.close()

    def serve(self, stop: CancelToken) -> None:
        """Go on for other work, which another stop ends."""
        self._http.serve(stop)

    def abort(self) -> None:
        """End what is asked of the token server now."""
        self._http.abort()

    def _basic(self) -> str | None:
        if self._credentials is not None and self._credentials.is_identity_token:
            raise WorkError(
                ErrorClass.AUTH,
                f"{self._host} wants a username and a password; an identity token does not convince it.",
            )
        return self._credentials.basic if self._credentials else None

    def _new_token(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not may_lead_to(self._registry_origin, realm):
            raise WorkError(
                ErrorClass.INVALID,
                f"{self._host} sends us to {host_of(realm)} for a token, an address that no credentials are sent to: "
                "a token server is spoken to over https, or on the registry's own host.",
            )
        query = [("scope", each) for each in self._scopes.get(scope, scope.split())]
        service = challenge.parameters.get("service")
        if service:
            query.insert(0, ("service", service))
        answer = self._asked(realm, [("client_id", _CLIENT_ID), *query])
        document = answer.json_object()
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _HEADER_SAFE.fullmatch(value):
            raise WorkError(
                ErrorClass.INVALID, f"{host_of(realm)}, {self._host}'s token server, answered without a token."
            )
        life = document.get("expires_in")
        seconds = float(life) if isinstance(life, int) and life > 0 else _MIN_LIFETIME_SECONDS
        seconds = min(seconds, _MAX_LIFETIME_SECONDS)
        return _Token(value, time.monotonic() + seconds - min(10.0, seconds / 5))

    def _asked(self, realm: str, query: list[tuple[str, str]]) -> Response:
        credentials = self._credentials
        if credentials is not None and credentials.is_identity_token:
            # OAuth2 knows one scope with spaces in it, where the older way repeats it (RFC 6749 section 3.3).
            scopes = " ".join(value for name, value in query if name == "scope")
            kept = [(name, value) for name, value in query if name != "scope"]
            form = [("grant_type", "refresh_token"), ("refresh_token", credentials.password), *kept, ("scope", scopes)]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._http.exchange("POST", realm, headers, urlencode(form).encode())
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            answer = self._http.exchange("GET", _with_query(realm, query), headers)
        if answer.status == 200:
            return answer
        raise self._refused(answer)

    def _refused(self, answer: Response) -> WorkError:
        failure = error_from_response(
            host_of(answer.url),
            answer,
            f"giving a token for {self._host}",
            with_credentials=self._credentials is not None,
            secrets=self.secrets,
        )
        if answer.method == "POST" and answer.status == 400:
            # RFC 6749 section 5.2: a refresh token that is refused is a 400, invalid_grant.
            return WorkError(ErrorClass.AUTH, f"{failure.message} The identity token may have ended: give a new one.")
        return failure


def _best(challenges: list[Challenge]) -> Challenge | None:
    """Bearer where it is offered: its tokens are narrower than the password."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None


def _with_query(url: str, query: list[tuple[str, str]]) -> str:
    parts = urlsplit(url)
    kept = parse_qsl(parts.query, keep_blank_values=True)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode([*kept, *query]), ""))
