"""A session with one registry: its scheme, its authentication, and the redirects that are followed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.connections import InvalidCertificateError, Proxy, tls_context
from shared.net.errors import is_non_tls_peer
from shared.net.http import HttpTransport, RequestBody, Timeouts
from shared.net.origins import host_of, is_redirect_allowed, is_target_allowed, origin_of, path_of
from shared.net.responses import Response
from shared.registry.address import RegistryAddress
from shared.registry.authentication import Authenticator
from shared.registry.credentials import Credentials
from shared.registry.errors import error_from_response

_MAX_REDIRECTS = 5
_HEADERS = {"User-Agent": "longshore"}


class RegistrySession:
    """Sends requests to one registry. A context manager, for one thread; `clone` makes one for another thread.

    Only `abort` may be called from another thread.

    Every method raises `WorkError` for errors of the registry, of its token server and of the network, and
    `WorkCancelledError` when cancelled. The credentials go to the registry's own origin and to the token server that
    its own 401 names, nowhere else.
    """

    def __init__(
        self,
        address: RegistryAddress,
        credentials: Credentials | None = None,
        *,
        verify_tls: bool = True,
        ca_certificate: str | None = None,
        proxy: Proxy | None = None,
        timeouts: Timeouts | None = None,
        cancel_token: CancelToken | None = None,
    ) -> None:
        try:
            context = tls_context(verify_tls=verify_tls, ca_certificate=ca_certificate)
        except InvalidCertificateError as error:
            raise WorkError(ErrorClass.INVALID, str(error)) from error
        self.address = address
        self.credentials = credentials
        self._http = HttpTransport(context, timeouts or Timeouts(), cancel_token, proxy=proxy)
        # The token server is trusted no more than the registry: the same TLS options apply to both.
        self._token_http = self._http.clone()
        self._authenticator = Authenticator(self._token_http, address.authority, credentials)
        self._is_clone = False
        self._origin = address.origin if address.scheme_given or not address.is_loopback else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def clone(self) -> Self:
        """Return a session for another thread that shares the tokens of this one. It must be closed before this one."""
        other = copy(self)
        other._is_clone = True  # noqa: SLF001 - an object of this class
        other._http = self._http.clone()  # noqa: SLF001 - an object of this class
        return other

    def set_cancel_token(self, cancel_token: CancelToken) -> None:
        """Use the session for other work, with its connections and tokens."""
        self._http.cancel_token = cancel_token
        self._token_http.cancel_token = cancel_token

    def close(self) -> None:
        self._http.close()
        if not self._is_clone:
            self._token_http.close()

    def abort(self) -> None:
        """Interrupt the present request, from another thread. Every later request fails."""
        self._http.abort()
        if not self._is_clone:
            self._token_http.abort()

    @property
    def host(self) -> str:
        return self.address.authority

    @property
    def was_challenged(self) -> bool:
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
        timeouts: Timeouts | None = None,
    ) -> Response:
        """Send a request to the registry, again with credentials if it answers 401, and return its response.

        `path` begins with a slash; `scope` is that of the token spec, empty for none. With `follow` (for GET and HEAD)
        redirects are followed, to another origin without the credentials. `timeouts` replace those of the session.
        """
        url = self._resolved_origin() + path
        all_headers = {**_HEADERS, **(headers or {})}
        authorization = self._authenticator.authorization(scope)
        response = self._http.request(method, url, _with(all_headers, authorization), body, timeouts=timeouts)
        if response.status == 401:
            renewed = self._authenticator.handle_challenge(response, scope, authorization)
            if renewed is not None:
                authorization = renewed
                response = self._http.request(method, url, _with(all_headers, authorization), body, timeouts=timeouts)
        if not follow or method not in {"GET", "HEAD"}:
            return response
        for _ in range(_MAX_REDIRECTS):
            target = response.location
            if not response.is_redirect or not target:
                return response
            self._check_redirect(response.url, target)
            authorization = authorization if self.is_own_url(target) else None
            response = self._http.request(method, target, _with(all_headers, authorization))
        raise self._too_many_redirects()

    def send_to(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | RequestBody | None = None,
        timeouts: Timeouts | None = None,
    ) -> Response:
        """Send a request to a URL that the registry returned; to another origin without the credentials.

        Raises:
            WorkError: the registry may not redirect there (invalid).
        """
        origin = self._resolved_origin()
        if origin_of(_behind_tls(url, origin)) == origin:
            return self.send(method, path_of(url), scope=scope, headers=headers, body=body, timeouts=timeouts)
        if not is_target_allowed(origin, url):
            raise WorkError(
                ErrorClass.INVALID,
                f"{self.host} names {host_of(url)} for uploads, where layers are not sent: it must use https, or be at "
                "the registry's own scheme, host and port.",
            )
        return self._http.request(method, url, {**_HEADERS, **(headers or {})}, body, timeouts=timeouts)

    def is_own_url(self, url: str) -> bool:
        return origin_of(url) == self._origin

    @contextmanager
    def stream(
        self, path: str, *, scope: str, headers: Mapping[str, str], timeouts: Timeouts
    ) -> Iterator[tuple[Response, Callable[[int], bytes]]]:
        """GET a large body and follow redirects as `send` does: yield a response without a body, and its reader."""
        url = self._resolved_origin() + path
        all_headers = {**_HEADERS, **headers}
        authorization = self._authenticator.authorization(scope)
        for _ in range(_MAX_REDIRECTS):
            with ExitStack() as stack:
                response, read = stack.enter_context(
                    self._http.stream(url, _with(all_headers, authorization), timeouts)
                )
                target = response.location
                if response.is_redirect and target:
                    self._check_redirect(url, target)
                    authorization = authorization if self.is_own_url(target) else None
                    url = target
                    continue
                if response.status == 401 and self.is_own_url(url):
                    renewed = self._authenticator.handle_challenge(response, scope, authorization)
                    if renewed is not None:
                        authorization = renewed
                        continue
                yield response, read
                return
        raise self._too_many_redirects()

    def response_error(self, response: Response, action: str) -> WorkError:
        """Return the error of an unexpected response, with the registry and the action ("pushing to …") in its text."""
        return error_from_response(
            self.host,
            response,
            action,
            with_credentials=self.credentials is not None,
            secrets=self._authenticator.secrets,
        )

    def own_path(self, response: Response) -> str | None:
        """Return path and query of a response's `Location` for `send`; None if it is not at the registry itself."""
        target = response.location
        return path_of(target) if target and self.is_own_url(target) else None

    def _resolved_origin(self) -> str:
        """Return the registry's origin; for a loopback registry without a scheme find it by a request first.

        As the Docker engine does: HTTPS, and plain HTTP if a loopback host does not use TLS. No credentials are sent.
        """
        if self._origin is None:
            origin = self.address.origin
            try:
                self._http.request("HEAD", f"{origin}/v2/", {})
            except WorkError as error:
                if not is_non_tls_peer(error.__cause__):
                    raise
                origin = self.address.over_plain_http().origin
                self._http.request("HEAD", f"{origin}/v2/", {})
            self._origin = origin
        return self._origin

    def _check_redirect(self, source: str, target: str) -> None:
        if not is_redirect_allowed(source, target):
            raise WorkError(
                ErrorClass.INVALID, f"{self.host} redirects to {host_of(target)}, which is not an allowed address."
            )

    def _too_many_redirects(self) -> WorkError:
        return WorkError(ErrorClass.INVALID, f"{self.host} redirects too often.")


def _behind_tls(url: str, origin: str) -> str:
    """Return an http URL as https, if it is that of a registry that does not know of the TLS proxy in front of it."""
    if origin_of(url) is None:
        return url
    parts, own = urlsplit(url), urlsplit(origin)
    if parts.scheme == "http" and own.scheme == "https" and parts.hostname == own.hostname and parts.port is None:
        return parts._replace(scheme="https", netloc=own.netloc).geturl()
    return url


def _with(headers: dict[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else headers
