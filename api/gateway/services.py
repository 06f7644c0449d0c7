"""The services behind the gateway: which requests go to each, and how many of one client at a time."""

import re
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from api.gateway.clients import Turns
from shared.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5
IDLE_CALLS_TIMEOUT_SECONDS = 1.0
MAX_HEADER_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
GIT_PREFIX = "/git/"
CALLS_PREFIXES = ("/v1/algo/", "/v1/requests/")
HEALTH_PATHS = ("/healthz", "/readyz")
EVENT_STREAM_PATH = re.compile(r"/v1/jobs/.*/events/*", re.DOTALL)
"""The API ignores slashes at the end."""
WAIT_PREFERENCE = re.compile(r"\bwait\b", re.IGNORECASE)


@dataclass(frozen=True)
class Service:
    """A service behind the gateway."""

    url: str
    session: aiohttp.ClientSession
    turns: Turns
    waits: Turns
    """For requests that wait for jobs: `Prefer: wait`, and event streams."""
    max_body_bytes: int | None = None
    """None: bodies and responses are streamed."""


class Services:
    """The three services. A client has half of the threads of each at most, so that others always find some."""

    def __init__(self, configured: Settings) -> None:
        # A new connection for each request: the service may close one that was kept just when it is used again, and a
        # POST must not be sent twice.
        session = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        # Calls are many and short: connecting took a tenth of a warm one. The service keeps idle connections much
        # longer than the gateway, so it closes one during a call only when it ends itself.
        calls_session = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CALLS_TIMEOUT_SECONDS))
        places = configured.api_workers * configured.api_threads
        waits = Turns(client_places=max(1, places * 3 // 8))  # with the other half, some places are left for others
        self._api = Service(
            configured.resolved_api_url.rstrip("/"),
            session,
            Turns(client_places=max(1, places // 2)),
            waits,
            configured.max_body_bytes,
        )
        calls_turns = Turns(client_places=max(1, configured.calls_workers * configured.calls_threads // 2))
        self._calls = Service(
            configured.resolved_calls_url.rstrip("/"), calls_session, calls_turns, waits, configured.call_max_bytes
        )
        git_turns = Turns(client_places=configured.git_threads // 2)
        self._git = Service(configured.resolved_git_url.rstrip("/"), session, git_turns, waits)

    def find(self, request: web.BaseRequest) -> Service:
        if is_git(request):
            return self._git
        return self._calls if request.path.startswith(CALLS_PREFIXES) else self._api

    async def close(self) -> None:
        await self._api.session.close()
        await self._calls.session.close()


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        read_bufsize=CHUNK_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


def is_git(request: web.BaseRequest) -> bool:
    return request.path.startswith(GIT_PREFIX)


def is_health(request: web.BaseRequest) -> bool:
    """Return whether a request is for health, in the one notation for which the services have threads of their own.

    Such a request counts for no client. `/%72eadyz` would take one of the other threads.
    """
    path = request.raw_path.partition("?")[0]
    return path in HEALTH_PATHS and request.method in ("GET", "HEAD") and not request.body_exists


def is_event_stream(request: web.BaseRequest) -> bool:
    return request.method == "GET" and EVENT_STREAM_PATH.fullmatch(request.path) is not None


def prefers_wait(request: web.BaseRequest) -> bool:
    return any(WAIT_PREFERENCE.search(value) for value in request.headers.getall("Prefer", []))
