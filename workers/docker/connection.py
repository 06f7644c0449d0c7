"""The way to the Docker engine: one client for each process, and a connection of its own for each long call."""

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

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from workers.jobs.deadline import Deadline

TIMEOUT_SECONDS = 60
"""How long a short call waits for the engine."""
SILENCE_SECONDS = 15 * 60
"""How long a streaming call waits for the engine's next word: its own retries towards a registry are silent."""
NO_SPACE = "no space left on device"

_NO_ANSWER = (
    DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)
_clients: dict[tuple[int, str], APIClient] = {}


def engine_address() -> str:
    """Where the engine is, as `DOCKER_HOST` names it."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def engine() -> APIClient:
    """The client of this process, for short calls. A fork makes one of its own: connections are not shared.

    Raises:
        WorkError: the engine does not answer (unavailable).
    """
    key = (os.getpid(), engine_address())
    if key not in _clients:
        with engine_errors():
            client = APIClient(timeout=TIMEOUT_SECONDS, version=_version_of_engine(), **kwargs_from_env())
            _mount_adapter(client)
        # docker-py keeps a connection for every path that was ever asked for; a new one costs next to nothing.
        client.headers["Connection"] = "close"
        _clients[key] = client
    return _clients[key]


def ping() -> None:
    """Ask the engine whether it is there.

    Raises:
        WorkError: it does not answer (unavailable).
    """
    with engine_errors():
        engine().ping()


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn what docker-py, requests and urllib3 raise in the block into a `WorkError` with the class of its cause.

    Raises:
        WorkError: the engine does not answer, or its disk is full (unavailable); it refused a request (invalid);
            it failed (transient).
    """
    try:
        yield
    except APIError as error:
        raise _api_error(error) from error
    except _NO_ANSWER as error:
        raise WorkError(
            ErrorClass.UNAVAILABLE,
            f"the Docker engine at {engine_address()} does not answer: {_innermost(error)}; the job waits",
        ) from error
    except OSError as error:
        if NO_SPACE in str(error).lower():
            raise disk_is_full(f"this machine: {error.strerror}") from error
        raise


def disk_is_full(where: str) -> WorkError:
    """The error for a disk without space: the job waits until somebody makes room."""
    return WorkError(ErrorClass.UNAVAILABLE, f"there is no space left on the disk of {where}; the job waits for room")


@contextmanager
def interruptible(stop: CancelToken, deadline: Deadline | None = None) -> Iterator["EngineClient"]:
    """Run the block with a client of its own, which a stop, or the deadline, cuts off in the middle of a read.

    Errors of the engine become `WorkError`s as in `engine_errors`.

    Raises:
        Stopped: the stop was asked for, before or during the block.
        WorkError: the deadline passed (invalid), or as `engine_errors` says.
    """
    if deadline is not None:
        deadline.check()
    with engine_errors():
        client = EngineClient(SILENCE_SECONDS if deadline is None else deadline.left + TIMEOUT_SECONDS)
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
    """A client whose connections another thread may shut, at whatever point its call is.

    It never sends the credentials in the operator's own Docker configuration.
    """

    def __init__(self, silence_seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._responses: list[requests.Response] = []
        self._is_shut = False
        super().__init__(timeout=int(silence_seconds) + 1, version=engine().api_version, **kwargs_from_env())
        _mount_adapter(self, self._note_socket)
        self.hooks["response"].append(self._note_response)

    @property
    def last_response(self) -> requests.Response:
        """The response of the latest request, which a stream can be read from."""
        return self._responses[-1]

    def shut(self) -> None:
        """End every read and write that is under way; safe from another thread, and more than once."""
        self._is_shut = True
        for connection in list(self._sockets):
            _shut_socket(connection)
        for response in list(self._responses):
            # Transports other than the unix socket: docker-py knows where they keep theirs.
            with suppress(Exception):
                CancellableStream(iter(()), response).close()

    def close(self) -> None:
        """Give back the connections."""
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
        """A build pulls nothing, so it needs none of the operator's registry passwords."""


def _version_of_engine() -> str:
    with closing(APIClient(version=MINIMUM_DOCKER_API_VERSION, timeout=TIMEOUT_SECONDS, **kwargs_from_env())) as client:
        _mount_adapter(client)
        return str(client.version(api_version=False)["ApiVersion"])


def _mount_adapter(client: APIClient, note: Callable[[socket.socket], None] | None = None) -> None:
    """Have the client make its unix sockets our way: told of as they are made, and closed where nobody answers.

    A response hook alone would come too late for a call that still waits for its response.
    """
    adapter = client.get_adapter(client.base_url)
    if isinstance(adapter, UnixHTTPAdapter):
        client.mount("http+docker://", _Adapter(adapter, note))


class _Connection(UnixHTTPConnection):
    note: Callable[[socket.socket], None] | None

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

    def _new_conn(self) -> _Connection:  # type: ignore[override]
        made = _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]
        made.note = self.note
        return made


class _Adapter(UnixHTTPAdapter):
    def __init__(self, like: UnixHTTPAdapter, note: Callable[[socket.socket], None] | None) -> None:
        super().__init__(f"http+unix://{like.socket_path}", like.timeout)
        self._note = note

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
    said = str(error.explanation or error)
    if NO_SPACE in said.lower():
        return disk_is_full(f"the Docker engine at {engine_address()}")
    if error.status_code is not None and error.status_code >= 500:
        return WorkError(ErrorClass.TRANSIENT, f"the Docker engine failed: {said}")
    return WorkError(ErrorClass.INVALID, f"the Docker engine refused the request: {said}")


def _innermost(error: BaseException) -> str:
    """The sentence at the bottom of a nest of wrapped errors ("Connection refused"), which is the one that helps."""
    while True:
        inner = next((part for part in error.args if isinstance(part, BaseException)), None) or error.__context__
        if inner is None:
            return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        error = inner
