"""A proxy in front of a registry, which forwards every request except during a fault."""

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.chaos.plan import Kind

SHARE = 0.5
"""The share of the requests that meet the fault while it lasts."""
DELAY_SECONDS = (0.3, 3.0)
DEFAULT_BYTES_PER_SECOND = 1_500_000
"""The speed of an upload, so that a push takes long enough for a fault; only the beginning of a large layer is slow."""
SLOWED_BYTES = 4_000_000
THROTTLED_BYTES_PER_SECOND = 300_000
CUT_AFTER_BYTES = 100_000
USES_OF_A_TOKEN = 3
FORGOTTEN_BYTES = 8 * 1024 * 1024
"""Smaller blobs are reported as missing, so that every push has something to upload."""
HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Host")
ERRORS = {
    Kind.REGISTRY_401: (401, "UNAUTHORIZED"),
    Kind.REGISTRY_403: (403, "DENIED"),
    Kind.REGISTRY_404: (404, "NAME_UNKNOWN"),
    Kind.REGISTRY_413: (413, "SIZE_INVALID"),
    Kind.REGISTRY_429: (429, "TOOMANYREQUESTS"),
    Kind.REGISTRY_500: (500, "UNKNOWN"),
    Kind.REGISTRY_502: (502, "UNKNOWN"),
    Kind.REGISTRY_503: (503, "UNAVAILABLE"),
}


class _CutError(Exception):
    """Raised when the connection is to be cut."""


class FaultyProxy:
    """A proxy with the fault that it injects at the moment."""

    def __init__(self, target: str, seed: int) -> None:
        self.host = ""
        self.hits: Counter[Kind] = Counter()
        """The number of requests that met each kind of fault."""
        self._target = target
        self._kind: Kind | None = None
        self._chance = random.Random(seed)  # noqa: S311 - not a secret
        self._uses: Counter[str] = Counter()
        self._forgotten: set[str] = set()
        self._uploaded: set[tuple[str, str]] = set()
        self._uploading = threading.Event()
        self._session: aiohttp.ClientSession | None = None

    def misbehave(self, kind: Kind) -> None:
        """Start a fault."""
        self._uses.clear()
        self._kind = kind

    def behave(self) -> None:
        """End the fault."""
        self._kind = None

    def wait_for_upload(self, seconds: float) -> bool:
        """Wait for the next bytes of a layer; return whether they came within `seconds`."""
        self._uploading.clear()
        return self._uploading.wait(seconds)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward a request, or respond to it with the fault."""
        kind = self._kind_for(request)
        try:
            response = await self._misbehaved(request, kind)
            if response is None:
                response = await self._pass_on(request, kind)
        except (aiohttp.ClientError, ConnectionError, _CutError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # the connection is closed
        return response

    def _kind_for(self, request: web.BaseRequest) -> Kind | None:
        kind = self._kind if request.path != "/token" else None
        if kind == Kind.TOKEN_EXPIRES:
            return kind if self._token_is_used_up(request) else None
        if kind == Kind.REGISTRY_LIES:
            return kind if request.method in ("GET", "HEAD") and "/manifests/" in request.path else None
        return kind if kind is not None and self._chance.random() < SHARE else None

    def _token_is_used_up(self, request: web.BaseRequest) -> bool:
        token = request.headers.get("Authorization", "")
        if not token.startswith("Bearer "):
            return False
        self._uses[token] += 1
        return self._uses[token] > USES_OF_A_TOKEN

    async def _misbehaved(self, request: web.BaseRequest, kind: Kind | None) -> web.StreamResponse | None:
        if kind is None:
            return None
        self.hits[kind] += 1
        if kind in (Kind.REGISTRY_401, Kind.TOKEN_EXPIRES):
            return await self._challenge(request)
        if kind in ERRORS:
            headers = {"Retry-After": "1"} if kind == Kind.REGISTRY_429 else {}
            return _error(*ERRORS[kind], headers)
        if kind == Kind.REGISTRY_LIES:
            return self._lie(request)
        if kind == Kind.REGISTRY_DELAYS:
            await asyncio.sleep(self._chance.uniform(*DELAY_SECONDS))
        return None

    def _lie(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._chance.random() < SHARE:
            return _error(404, "MANIFEST_UNKNOWN", {})
        other = b'{"schemaVersion": 2}'
        headers = {
            "Content-Type": "application/vnd.docker.distribution.manifest.v2+json",
            "Docker-Content-Digest": f"sha256:{self._chance.getrandbits(256):064x}",
        }
        return web.Response(status=200, headers=headers, body=b"" if request.method == "HEAD" else other)

    async def _challenge(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond with the registry's challenge, as it does when a token has expired."""
        headers = self._headers(request)
        headers.popall("Authorization", None)
        headers.popall("Content-Length", None)
        async with self._upstream.request(request.method, self._url(request), headers=headers) as response:
            challenge = self._at_this_origin(request, response.headers.get("WWW-Authenticate", 'Basic realm="chaos"'))
        if challenge.startswith("Bearer "):
            challenge += ',error="invalid_token"'
        return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

    async def _pass_on(self, request: web.BaseRequest, kind: Kind | None) -> web.StreamResponse:
        body = self._body(request, kind) if request.can_read_body else None
        async with self._upstream.request(
            request.method, self._url(request), headers=self._headers(request), data=body, allow_redirects=False
        ) as response:
            if self._forgets(request, response):
                return _error(404, "BLOB_UNKNOWN", {})
            if request.method == "PUT" and response.status == 201:
                self._uploaded.add((_repository(request), request.query.get("digest", "")))
            headers = CIMultiDict(response.headers)
            for name in HOP_BY_HOP:
                headers.popall(name, None)
            if challenge := headers.get("WWW-Authenticate"):
                headers["WWW-Authenticate"] = self._at_this_origin(request, challenge)
            passed = web.StreamResponse(status=response.status, headers=headers)
            await passed.prepare(request)
            async for chunk in response.content.iter_any():
                await passed.write(chunk)
                if kind == Kind.REGISTRY_CUTS:
                    raise _CutError
            if kind == Kind.REGISTRY_CUTS and request.method not in ("HEAD",):
                raise _CutError
            await passed.write_eof()
            return passed

    def _at_this_origin(self, request: web.BaseRequest, challenge: str) -> str:
        """Return the challenge with the token server behind this proxy too: one at another port gets no password."""
        return challenge.replace(f"http://{self._target}/", f"http://{request.host}/")

    async def _body(self, request: web.BaseRequest, kind: Kind | None) -> AsyncIterator[bytes]:
        passed = 0
        async for chunk in request.content.iter_chunked(64 * 1024):
            passed += len(chunk)
            if passed > CUT_AFTER_BYTES:
                self._uploading.set()
                if kind == Kind.REGISTRY_CUTS:
                    raise _CutError
            if kind == Kind.REGISTRY_THROTTLES:
                await asyncio.sleep(len(chunk) / THROTTLED_BYTES_PER_SECOND)
            elif passed < SLOWED_BYTES:
                await asyncio.sleep(len(chunk) / DEFAULT_BYTES_PER_SECOND)
            yield chunk

    def _forgets(self, request: web.BaseRequest, response: aiohttp.ClientResponse) -> bool:
        if request.method != "HEAD" or "/blobs/" not in request.path or response.status != 200:
            return False
        if int(response.headers.get("Content-Length", 0)) >= FORGOTTEN_BYTES:
            return False
        digest = request.path.rpartition("/")[2]
        if (_repository(request), digest) in self._uploaded:
            # A push checks once that the blob it uploaded exists.
            self._uploaded.remove((_repository(request), digest))
            return False
        self._forgotten.add(digest)
        return True

    @property
    def _upstream(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the proxy is not running")
        return self._session

    def _url(self, request: web.BaseRequest) -> URL:
        url = URL(f"http://{self._target}{request.raw_path}", encoded=True)
        # A blob that is reported as missing cannot be mounted either.
        return url.with_query(None) if url.query.get("mount") in self._forgotten else url

    def _headers(self, request: web.BaseRequest) -> CIMultiDict[str]:
        headers = CIMultiDict(request.headers)
        for name in HOP_BY_HOP:
            headers.popall(name, None)
        # The registry builds upload URLs from the Host header.
        headers["Host"] = self.host
        return headers

    async def run(self, listening: threading.Event, ended: asyncio.Event) -> None:
        """Listen until `ended` is set."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=("User-Agent", "Accept")
        ) as session:
            self._session = session
            runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.host = "{}:{}".format(*runner.addresses[0][:2])
            listening.set()
            await ended.wait()
            await runner.cleanup()


@contextmanager
def faulty_proxy(target: str, seed: int) -> Iterator[FaultyProxy]:
    """Run a proxy to the registry at `target` (host:port) in a thread, during the block."""
    proxy = FaultyProxy(target, seed)
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(proxy.run(listening, ended)), name="proxy", daemon=True
    )
    thread.start()
    if not listening.wait(10):
        raise RuntimeError("the proxy does not listen")
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def _repository(request: web.BaseRequest) -> str:
    return request.path.partition("/blobs/")[0]


def _error(status: int, code: str, headers: dict[str, str]) -> web.Response:
    body = json.dumps({"errors": [{"code": code, "message": "injected"}]})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)
