"""Connections to the Docker engine: one client per process, and one per long call, which can be interrupted."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from threading import Timer
from typing import Any

import requests
import urllib3
from docker import APIClient
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool
from docker.types import CancellableStream
from docker.utils import kwargs_from_env
from typing_extensions import override

from shared.cancellation import CancelToken, Deadline
from shared.errors import ErrorClass, WorkError

TIMEOUT_SECONDS = 60
"""Timeout of short calls."""
STREAM_TIMEOUT_SECONDS = 15 * 60
"""Timeout for the next event of a stream: the engine sends nothing during its own retries towards a registry."""
NO_SPACE = "no space left on device"

_UNREACHABLE = (
    DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)
_clients: dict[tuple[int, str], APIClient] = {}


def engine_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def engine() -> APIClient:
    """Return the client of this process for short calls. A forked process gets its own: connections are not shared.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    key = (os.getpid(), engine_address())
    if key not in _clients:
        with engine_errors():
            with closing(_new_client(MINIMUM_DOCKER_API_VERSION)) as probe:
                version = str(probe.version(api_version=False)["ApiVersion"])
            client = _new_client(version)
        # docker-py keeps a connection for every path that was ever requested; a new one costs almost nothing.
        client.headers["Connection"] = "close"
        _clients[key] = client
    return _clients[key]


def ping(*, timeout: int) -> None:
    """Ask the engine for a response within `timeout` seconds, and keep no connection: this process may fork.

    Raises:
        WorkError: the engine does not respond (unavailable).

    """
    with engine_errors(), closing(_new_client(MINIMUM_DOCKER_API_VERSION, timeout)) as client:
        client.ping()


def _new_client(version: str, timeout: int = TIMEOUT_SECONDS) -> APIClient:
    client = APIClient(timeout=timeout, version=version, **kwargs_from_env())
    _mount_adapter(client)
    return client


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn errors of docker-py, requests and urllib3 into a `WorkError` with the class of the cause.

    Raises:
        WorkError: the engine does not respond, or its disk is full (unavailable); it refused a request (invalid);
            it failed (transient).

    """
    try:
        yield
    except APIError as error:
        raise _api_error(error) from error
    except _UNREACHABLE as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"the Docker engine at {engine_address()} does not answer: {_innermost(error)}; the job waits",
        ) from error
    except OSError as error:
        if NO_SPACE in str(error).lower():
            raise disk_is_full(f"this machine: {error.strerror}") from error
        raise


def disk_is_full(where: str) -> WorkError:
    """Return the error for a disk without space: the job waits until space is freed."""
    return WorkError(ErrorClass.UNAVAILABLE, f"there is no space left on the disk of {where}; the job waits for room")


@contextmanager
def interruptible(stop: CancelToken, deadline: Deadline | None = None) -> Iterator["EngineClient"]:
    """Give a new client for the block; cancellation and the deadline interrupt its calls, even in a read.

    Errors of the engine become `WorkError`s as in `engine_errors`.

    Raises:
        WorkCancelledError: the work was cancelled, before or during the block.
        WorkError: the deadline passed (invalid), or as `engine_errors`.

    """
    if deadline is not None:
        deadline.check()
    with engine_errors():
        client = EngineClient(STREAM_TIMEOUT_SECONDS if deadline is None else deadline.left + TIMEOUT_SECONDS)
    alarm = Timer(0 if deadline is None else deadline.left, client.shut)
    alarm.daemon = True
    try:
        with stop.on_cancel(client.shut):
            if deadline is not None:
                alarm.start()
            try:
                with engine_errors():
                    yield client
            except WorkError as error:
                if deadline is not None and error.error_class is ErrorClass.UNAVAILABLE:
                    deadline.check()
                raise
            if deadline is not None:
                deadline.check()
    finally:
        alarm.cancel()
        client.close()


class EngineClient(APIClient):
    """A client whose connections another thread may shut during a call.

    It never sends the credentials in the operator's own Docker configuration.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._responses: list[requests.Response] = []
        self._is_shut = False
        super().__init__(timeout=int(timeout_seconds) + 1, version=engine().api_version, **kwargs_from_env())
        _mount_adapter(self, self._note_socket)
        self.hooks["response"].append(self._note_response)

    @property
    def last_response(self) -> requests.Response:
        """The response of the latest request, from which a stream can be read."""
        return self._responses[-1]

    def shut(self) -> None:
        """End all reads and writes in progress; may be called from another thread, and repeatedly."""
        self._is_shut = True
        for connection in list(self._sockets):
            _shut_socket(connection)
        for response in list(self._responses):
            # Other transports than the unix socket: docker-py finds their sockets.
            with suppress(Exception):
                CancellableStream(iter(()), response).close()

    @override
    def close(self) -> None:
        for response in self._responses:
            response.close()
        super().close()

    def _note_socket(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self._is_shut:
            _shut_socket(connection)

    def _note_response(self, response: requests.Response, *_: object, **__: object) -> None:
        self._responses.append(response)
        if self._is_shut:
            self.shut()

    def _set_auth_headers(self, headers: dict[str, str]) -> None:
        """Send no registry passwords of the operator: a build pulls nothing."""


def _mount_adapter(client: APIClient, note: Callable[[socket.socket], None] | None = None) -> None:
    """Replace the client's unix sockets with ones that are noted when made, and closed if connecting fails.

    A response hook alone would be too late for a call that still waits for its response.
    """
    adapter = client.get_adapter(client.base_url)
    if isinstance(adapter, UnixHTTPAdapter):
        client.mount("http+docker://", _Adapter(adapter, note))


class _Connection(UnixHTTPConnection):
    note: Callable[[socket.socket], None] | None

    @override
    def connect(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(self.timeout)
            opened.connect(self.unix_socket)
        except BaseException:
            opened.close()
            raise
        self.sock = opened
        if self.note is not None:
            self.note(opened)


class _Pool(UnixHTTPConnectionPool):
    note: Callable[[socket.socket], None] | None

    @override
    def _new_conn(self) -> _Connection:  # type: ignore[override]
        connection = _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]
        connection.note = self.note
        return connection


class _Adapter(UnixHTTPAdapter):
    def __init__(self, like: UnixHTTPAdapter, note: Callable[[socket.socket], None] | None) -> None:
        super().__init__(f"http+unix://{like.socket_path}", like.timeout)
        self._note = note

    @override
    def get_connection(self, url: bytes | str, proxies: Any = None) -> UnixHTTPConnectionPool:
        pool = self.pools.get(url)
        if pool is None:
            pool = _Pool(str(url), self.socket_path, self.timeout)
            pool.note = self._note
            self.pools[url] = pool
        return pool


def _shut_socket(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _api_error(error: APIError) -> WorkError:
    message = str(error.explanation or error)
    if NO_SPACE in message.lower():
        return disk_is_full(f"the Docker engine at {engine_address()}")
    if error.status_code is not None and error.status_code >= 500:
        return WorkError(ErrorClass.TRANSIENT, f"the Docker engine failed: {message}")
    return WorkError(ErrorClass.INVALID, f"the Docker engine refused the request: {message}")


def _innermost(error: BaseException) -> str:
    """Return the message of the innermost wrapped error (such as "Connection refused"), which has the cause."""
    while True:
        inner = next((part for part in error.args if isinstance(part, BaseException)), None) or error.__context__
        if inner is None:
            return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        error = inner
