"""A conversation with one registry: in which scheme, with what to convince it, and how far it is followed."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from shared.errors import ErrorClass, WorkError
from shared.registry.address import RegistryAddress
from shared.registry.answer import Answer
from shared.registry.authentication import Authenticator
from shared.registry.credentials import Credentials
from shared.registry.failures import failure_of_answer, speaks_no_tls
from shared.registry.origins import host_of, may_lead_to, origin_of
from shared.registry.trust import InvalidCertificate, tls_context
from shared.registry.wire import Limits, Wire
from shared.stopping import StopSignal

REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5


class RegistrySession:
    """Asks one registry; a context manager, for one thread (only `abort` may be called from another).

    Every method raises `WorkError` for whatever a registry, a token server or the way to them can do, and `Stopped`
    when `stop` is asked for meanwhile. The credentials go to the registry's own origin and to the token server that
    its own 401 names, never further.
    """

    def __init__(
        self,
        address: RegistryAddress,
        credentials: Credentials | None = None,
        *,
        verify_tls: bool = True,
        ca_certificate: str | None = None,
        limits: Limits | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        try:
            context = tls_context(verify_tls=verify_tls, ca_certificate=ca_certificate)
        except InvalidCertificate as error:
            raise WorkError(ErrorClass.INVALID, str(error)) from error
        self.address = address
        self.credentials = credentials
        # The same trust for the token server: who could pretend to be the registry could ask for the password itself.
        self._wire = Wire(context, limits or Limits(), stop)
        self._authenticator = Authenticator(self._wire, address.authority, credentials)
        self._origin = address.origin if address.scheme_given or not address.is_loopback else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def abort(self) -> None:
        """End what runs now, from another thread; every later call fails."""
        self._wire.abort()

    @property
    def host(self) -> str:
        """The registry's `host[:port]` for messages."""
        return self.address.authority

    @property
    def asked_for_credentials(self) -> bool:
        """Whether the registry ever asked who we are."""
        return self._authenticator.was_challenged

    def send(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        follow: bool = False,
    ) -> Answer:
        """Ask the registry itself, convincing it where it answers 401; whatever it answers then is handed back.

        `path` begins with a slash; `scope` is that of the token spec, empty for none. With `follow` (for GET and HEAD)
        redirects are followed, to another origin without the credentials.
        """
        url = self._settled_origin() + path
        asked = {"User-Agent": "longshore", **(headers or {})}
        authorization = self._authenticator.authorization(scope)
        answer = self._wire.exchange(method, url, _with(asked, authorization), body)
        if answer.status == 401:
            better = self._authenticator.meet(answer, scope)
            # What was refused once is not sent again: accounts are locked after some wrong passwords.
            if better is not None and better != authorization:
                authorization = better
                answer = self._wire.exchange(method, url, _with(asked, authorization), body)
        return self._followed(answer, asked, authorization) if follow else answer

    def failure(self, answer: Answer, doing: str) -> WorkError:
        """The error that `answer` means, naming the registry and what was being done."""
        return failure_of_answer(
            self.host,
            answer,
            doing,
            with_credentials=self.credentials is not None,
            secrets=self._authenticator.secrets,
        )

    def own_path(self, answer: Answer) -> str | None:
        """Path and query of an answer's `Location` where it is on the registry itself, for `send`; else `None`."""
        target = answer.location
        if origin_of(target) is None or origin_of(target) != self._origin:
            return None
        parts = urlsplit(target)
        return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"

    def _settled_origin(self) -> str:
        """The registry's origin; a loopback registry without a scheme is asked first, without credentials.

        The Docker engine does the same: HTTPS, and plain HTTP where a loopback host speaks no TLS.
        """
        if self._origin is None:
            self._origin = self._tried_origin()
        return self._origin

    def _tried_origin(self) -> str:
        secure, plain = self.address.origin, self.address.over_plain_http().origin
        try:
            self._wire.exchange("HEAD", f"{secure}/v2/", {})
        except WorkError as error:
            if not speaks_no_tls(error.__cause__):
                raise
            self._wire.exchange("HEAD", f"{plain}/v2/", {})
            return plain
        return secure

    def _followed(self, answer: Answer, headers: dict[str, str], authorization: str | None) -> Answer:
        for _ in range(_MOST_REDIRECTS):
            target = answer.location
            if answer.status not in REDIRECTS or not target or answer.method not in {"GET", "HEAD"}:
                return answer
            if not may_lead_to(answer.url, target):
                raise WorkError(
                    ErrorClass.INVALID,
                    f"{self.host} redirects to {host_of(target)}, an address that is not followed.",
                )
            if origin_of(target) != self._origin:
                authorization = None
            answer = self._wire.exchange(answer.method, target, _with(headers, authorization))
        raise WorkError(ErrorClass.INVALID, f"{self.host} redirects in a circle.")


def _with(headers: dict[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else headers
