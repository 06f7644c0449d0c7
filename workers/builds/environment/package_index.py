"""Read the operator's package index for builds, which do not get its URL and password (PEP 503, PEP 658).

A build requests the page of a project, or a file that a page links to. Links are encrypted with a key of the build, so
nothing else can be requested, and the build does not see URLs, whose paths may contain a secret.
"""

import base64
import html
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks
from shared.net.connections import ANY_NETWORK, InvalidCertificateError, tls_context
from shared.net.http import PIECE_BYTES, HttpTransport, Timeouts
from shared.net.origins import origin_of
from shared.net.responses import Response
from shared.numbers import whole_number
from workers.builds.context import without_credentials

MAX_PAGE_BYTES = 32 * 1024 * 1024
"""The largest pages of public indexes have about 10 MB."""
MAX_LINK_LENGTH = 4096
MAX_REDIRECTS = 5
TIMEOUTS = Timeouts(connect=15, read=60, total=None)
_NONCE_BYTES = 12
_PROJECT_PATH = re.compile(r"simple/([A-Za-z0-9][A-Za-z0-9._-]{0,200})/")
_FILE_PATH = re.compile(r"files/([A-Za-z0-9_-]+)/([^/?#\s]+)")
_METADATA = ".metadata"
_PAGE_TYPES = "application/vnd.pypi.simple.v1+html, text/html;q=0.2"
_KEPT_ATTRIBUTES = {
    "data-requires-python", "data-yanked", "data-core-metadata", "data-dist-info-metadata", "data-gpg-sig",
}  # fmt: skip


@dataclass(frozen=True)
class IndexResponse:
    """A response for the build: status, headers, and the body in pieces."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class PackageIndex:
    """The index of `url`, for one build. For one thread; only `abort` is thread-safe."""

    def __init__(
        self, url: str, ca_bundle: bytes | None, networks: AllowedNetworks, max_bytes: int, cancel_token: CancelToken
    ) -> None:
        self._url = without_credentials(url).rstrip("/")
        self._origin = origin_of(self._url)
        self._authorization = _basic_authorization(url)
        context = _tls_context(ca_bundle)
        self._own = HttpTransport(context, TIMEOUTS, cancel_token, ANY_NETWORK)
        self._other = HttpTransport(context, TIMEOUTS, cancel_token, networks)
        self._max_bytes = max_bytes
        self._cipher = AESGCM(AESGCM.generate_key(128))

    @contextmanager
    def get(self, path: str) -> Iterator[IndexResponse]:
        """Request `simple/PROJECT/`, or the target of a link of such a page; anything else is not found.

        Raises:
            WorkCancelledError: the build was cancelled.
            WorkError: the index does not respond (transient), refused the credentials (auth), or its certificate is
                not trusted (invalid). The block raises it too, while it reads `pieces`.
        """
        if project := _PROJECT_PATH.fullmatch(path):
            with self._opened(f"{self._url}/{project[1]}/", {"Accept": _PAGE_TYPES}) as (response, read):
                yield _found(response) or self._page(response, read)
        elif url := self._linked_url(path):
            with self._opened(url, {}) as (response, read):
                yield _found(response) or self._file(response, read)
        else:
            yield not_found()

    def abort(self) -> None:
        """End the present request and refuse any further one."""
        self._own.abort()
        self._other.abort()

    def close(self) -> None:
        self._own.close()
        self._other.close()

    @contextmanager
    def _opened(self, url: str, headers: Mapping[str, str]) -> Iterator[tuple[Response, Callable[[int], bytes]]]:
        """Request a URL and follow redirects. Only the origin of the index gets the password."""
        for _ in range(MAX_REDIRECTS + 1):
            self._check_scheme(url)
            is_own = origin_of(url) == self._origin
            sent = {"Accept-Encoding": "identity", "User-Agent": "longshore", **headers}
            if is_own and self._authorization:
                sent["Authorization"] = self._authorization
            with _index_errors(), (self._own if is_own else self._other).stream(url, sent, TIMEOUTS) as (found, read):
                if not found.is_redirect:
                    _raise_failure(found.status)
                    yield found, read
                    return
                url = urldefrag(found.location).url
        raise WorkError(ErrorClass.INVALID, "the package index redirects without end")

    def _check_scheme(self, url: str) -> None:
        origin = origin_of(url)
        if origin is None or (origin.startswith("http:") and str(self._origin).startswith("https:")):
            raise WorkError(ErrorClass.INVALID, "the package index redirects to a URL that is not https")

    def _page(self, response: Response, read: Callable[[int], bytes]) -> IndexResponse:
        if "json" in response.headers.get("Content-Type", ""):
            raise WorkError(
                ErrorClass.INVALID,
                "the package index (LONGSHORE_BUILD_INDEX_URL) returns JSON only; Longshore needs HTML (PEP 503)",
            )
        content = b"".join(_pieces(read, MAX_PAGE_BYTES))
        page = _Page(response.url, self._encrypted_link)
        page.feed(content.decode("utf-8", "replace"))
        page.close()
        body = f"<!DOCTYPE html>\n<html><body>\n{''.join(page.anchors)}</body></html>\n".encode()
        return IndexResponse(200, {"Content-Type": "text/html; charset=utf-8", **_length(len(body))}, iter([body]))

    def _file(self, response: Response, read: Callable[[int], bytes]) -> IndexResponse:
        length = whole_number(response.headers.get("Content-Length"))
        known = {} if length is None else _length(length)
        return IndexResponse(200, {"Content-Type": "application/octet-stream", **known}, _pieces(read, self._max_bytes))

    def _encrypted_link(self, url: str) -> str | None:
        """Return the path of a link, relative to the page of a project; None for one that cannot be requested."""
        target, fragment = urldefrag(url)
        name = urlsplit(target).path.rpartition("/")[2]
        if origin_of(target) is None or len(url) > MAX_LINK_LENGTH or not name:
            return None
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, target.encode(), None)).decode()
        return f"../../files/{sealed.rstrip('=')}/{name}" + (f"#{fragment}" if fragment else "")

    def _linked_url(self, path: str) -> str | None:
        match = _FILE_PATH.fullmatch(path)
        if match is None:
            return None
        with suppress(ValueError, InvalidTag):
            sealed = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
            url = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
            parts = urlsplit(url)
            name = parts.path.rpartition("/")[2]
            if match[2] == name:
                return url
            if match[2] == name + _METADATA:
                return parts._replace(path=parts.path + _METADATA).geturl()
        return None


class _Page(HTMLParser):
    """Reads the links of a page, and writes them with other targets."""

    def __init__(self, url: str, new_target: Callable[[str], str | None]) -> None:
        super().__init__()
        self._base = url
        self._new_target = new_target
        self.anchors: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        href = attributes.get("href")
        if href is None or tag not in {"a", "base"}:
            return
        with suppress(ValueError):
            url = urljoin(self._base, href.strip())
            if tag == "base":
                self._base = url
            elif (target := self._new_target(url)) is not None:
                kept = "".join(
                    f' {name}="{html.escape(value or "")}"' for name, value in attrs if name in _KEPT_ATTRIBUTES
                )
                name = unquote(urlsplit(target).path.rpartition("/")[2])
                self.anchors.append(f'<a href="{html.escape(target)}"{kept}>{html.escape(name)}</a><br>\n')


@contextmanager
def _index_errors() -> Iterator[None]:
    """Name the package index in errors, which otherwise name registries. Errors of forbidden addresses stay as is."""
    try:
        yield
    except WorkError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise WorkError(
                ErrorClass.INVALID,
                "the certificate of the package index is not trusted in builds "
                "(an operator can set LONGSHORE_BUILD_CA_BUNDLE)",
            ) from error
        if error.error_class is not ErrorClass.TRANSIENT or error.message.startswith("The package index"):
            raise
        raise WorkError(ErrorClass.TRANSIENT, f"the package index could not be reached: {error.message}") from error


def _raise_failure(status: int) -> None:
    if status == 401:
        raise WorkError(ErrorClass.AUTH, "the package index refused the credentials in LONGSHORE_BUILD_INDEX_URL (401)")
    if status == 429 or status >= 500:
        raise WorkError(ErrorClass.TRANSIENT, f"the package index could not be reached: it answers {status}")


def _found(response: Response) -> IndexResponse | None:
    """Return the response for the build if the index does not have the page or file; None if it has."""
    return None if response.status == 200 else _empty(response.status if 400 <= response.status < 500 else 404)


def not_found() -> IndexResponse:
    return _empty(404)


def failed() -> IndexResponse:
    """Return a response with a status after which pip does not repeat the request: the job is retried."""
    return _empty(504)


def _empty(status: int) -> IndexResponse:
    return IndexResponse(status, _length(0), iter(()))


def _length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size)}


def _pieces(read: Callable[[int], bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield a body.

    Raises:
        WorkError: it is larger (invalid).
    """
    size = 0
    while piece := read(PIECE_BYTES):
        size += len(piece)
        if size > max_bytes:
            raise WorkError(ErrorClass.INVALID, f"the package index sent more than {max_bytes} bytes for one request")
        yield piece


def _basic_authorization(url: str) -> str | None:
    user_information = urlsplit(url).netloc.rpartition("@")[0]
    if not user_information:
        return None
    user, _, password = user_information.partition(":")
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _tls_context(ca_bundle: bytes | None) -> ssl.SSLContext:
    try:
        return tls_context(ca_certificate=ca_bundle.decode("utf-8", "replace") if ca_bundle else None)
    except InvalidCertificateError:
        return tls_context()  # the certificate of the index is then refused, with a sentence that names the setting
