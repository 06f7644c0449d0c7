"""A conversation with one registry: in which scheme, with what to convince it, and how far it is followed."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.connections import Proxy
from shared.net.errors import speaks_no_tls
from shared.net.http import HttpTransport, RequestBody, Response, Timeouts
from shared.net.origins import host_of, may_lead_to, origin_of
from shared.net.tls import InvalidCertificateError, tls_context
from shared.registry.address import RegistryAddress
from shared.registry.authentication import Authenticator
from shared.registry.credentials import Credentials
from shared.registry.errors import error_from_response

REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5


class RegistrySession:
    """Asks one registry; a context manager, for one thread: others get one of their own by `clone`.

    Only `abort` may be called from another thread.

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
        proxy: Proxy | None = None,
        limits: Timeouts | None = None,
        stop: CancelToken | None = None,
    ) -> None:
        try:
            context = tls_context(verify_tls=verify_tls, ca_certificate=ca_certificate)
        except InvalidCertificateError as error:
            raise WorkError(ErrorClass.INVALID, str(error)) from error
        self.address = address
        self.credentials = credentials
        self._http = HttpTransport(context, limits or Timeouts(), stop, proxy=proxy)
        # The same trust for the token server: who could pretend to be the registry could ask for the password itself.
        self._authenticator = Authenticator(self._http.clone(), address.authority, credentials)
        self._is_first = True
        self._origin = address.origin if address.scheme_given or not address.is_loopback else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def clone(self) -> Self:
        """Another session with the same registry for another thread, which is believed for the same reasons.

        It must be closed before this one is.
        """
        other = copy(self)
        other._is_first = False
        other._http = self._http.clone()
        return other

    def serve(self, stop: CancelToken) -> None:
        """Go on for other work, which another stop ends: with the same connections, tokens and knowledge."""
        self._http.serve(stop)
        self._authenticator.serve(stop)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._is_first:
            self._authenticator.close()

    def abort(self) -> None:
        """End what runs now, from another thread; every later call fails."""
        self._http.abort()
        if self._is_first:
            self._authenticator.abort()

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
        body: bytes | RequestBody | None = None,
        follow: bool = False,
        limits: Timeouts | None = None,
    ) -> Response:
        """Ask the registry itself, convincing it where it answers 401; whatever it answers then is handed back.

        `path` begins with a slash; `scope` is that of the token spec, empty for none. With `follow` (for GET and HEAD)
        redirects are followed, to another origin without the credentials. `limits` are other ones than the session's.
        """
        url = self._settled_origin() + path
        asked = {"User-Agent": "longshore", **(headers or {})}
        authorization = self._authenticator.authorization(scope)
        answer = self._http.exchange(method, url, _with(asked, authorization), body, limits=limits)
        if answer.status == 401:
            better = self._authenticator.handle_challenge(answer, scope, authorization)
            # What was refused once is not sent again: accounts are locked after some wrong passwords.
            if better is not None and better != authorization:
                authorization = better
                answer = self._http.exchange(method, url, _with(asked, authorization), body, limits=limits)
        return self._followed(answer, asked, authorization) if follow else answer

    def send_to(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | RequestBody | None = None,
        limits: Timeouts | None = None,
    ) -> Response:
        """As `send`, to an address that the registry named itself; on another origin without the credentials.

        Raises:
            WorkError: it is none that a registry may send us to (invalid).
        """
        if origin_of(_over_tls(url, self._settled_origin())) == self._settled_origin():
            parts = urlsplit(url)
            path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            return self.send(method, path, scope=scope, headers=headers, body=body, limits=limits)
        self._refuse_unfollowed(self._settled_origin(), url)
        return self._http.exchange(method, url, {"User-Agent": "longshore", **(headers or {})}, body, limits=limits)

    @contextmanager
    def ending_within(self, seconds: float) -> Iterator[None]:
        """What the block asks ends within so many seconds, tokens included; the session ends with it, if it is cut."""
        clock = threading.Timer(seconds, self.abort)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()

    def is_own(self, url: str) -> bool:
        """Whether an address is the registry's own, and not that of a storage behind it."""
        return origin_of(url) == self._origin

    @contextmanager
    def reading(
        self, path: str, *, scope: str, headers: Mapping[str, str], limits: Timeouts
    ) -> Iterator[tuple[Response, Callable[[int], bytes]]]:
        """GET something large, following redirects as `send` does: the answer's head, and a reader of its body."""
        url = self._settled_origin() + path
        asked = {"User-Agent": "longshore", **headers}
        authorization = self._authenticator.authorization(scope)
        for _ in range(_MAX_REDIRECTS):
            with ExitStack() as kept:
                answer, read = kept.enter_context(self._http.reading(url, _with(asked, authorization), limits))
                target = answer.location
                if answer.status in REDIRECTS and target:
                    self._refuse_unfollowed(url, target)
                    authorization = authorization if origin_of(target) == self._origin else None
                    url = target
                    continue
                if answer.status == 401 and origin_of(url) == self._origin:
                    better = self._authenticator.handle_challenge(answer, scope, authorization)
                    if better is not None and better != authorization:
                        authorization = better
                        continue
                yield answer, read
                return
        raise WorkError(ErrorClass.INVALID, f"{self.host} redirects in a circle.")

    def failure(self, answer: Response, doing: str) -> WorkError:
        """The error that `answer` means, naming the registry and what was being done."""
        return error_from_response(
            self.host,
            answer,
            doing,
            with_credentials=self.credentials is not None,
            secrets=self._authenticator.secrets,
        )

    def own_path(self, answer: Response) -> str | None:
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
            self._http.exchange("HEAD", f"{secure}/v2/", {})
        except WorkError as error:
            if not speaks_no_tls(error.__cause__):
                raise
            self._http.exchange("HEAD", f"{plain}/v2/", {})
            return plain
        return secure

    def _refuse_unfollowed(self, here: str, target: str) -> None:
        if not may_lead_to(here, target):
            raise WorkError(
                ErrorClass.INVALID,
                f"{self.host} redirects to {host_of(target)}, an address that is not followed.",
            )

    def _followed(self, answer: Response, headers: dict[str, str], authorization: str | None) -> Response:
        for _ in range(_MAX_REDIRECTS):
            target = answer.location
            if answer.status not in REDIRECTS or not target or answer.method not in {"GET", "HEAD"}:
                return answer
            self._refuse_unfollowed(answer.url, target)
            if origin_of(target) != self._origin:
                authorization = None
            answer = self._http.exchange(answer.method, target, _with(headers, authorization))
        raise WorkError(ErrorClass.INVALID, f"{self.host} redirects in a circle.")


def _over_tls(url: str, origin: str) -> str:
    """The address as a registry means it that does not know of the TLS in front of it."""
    parts, own = urlsplit(url), urlsplit(origin)
    if parts.scheme == "http" and own.scheme == "https" and parts.hostname == own.hostname and parts.port is None:
        return parts._replace(scheme="https", netloc=own.netloc).geturl()
    return url


def _with(headers: dict[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else headers
