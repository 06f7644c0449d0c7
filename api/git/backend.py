"""The bridge to `git http-backend` (CGI, RFC 3875): streams both ways, holds little, leaves no process behind."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import structlog
from werkzeug.wrappers import Request, Response

from api.git.repositories import Repository, hooks_dir
from shared.git.command import GitProcess, clean_environment, start_git
from shared.settings import settings

CHUNK_BYTES = 64 * 1024
REQUEST_SECONDS = 30 * 60
"""How long one fetch or push may take."""
DRAIN_SECONDS = 120
"""How long a client may go on sending after git has ended."""
HEADER_LINE_BYTES = 8 * 1024
OVERRUN = 4
"""A push that git has refused is read on to so many times the limit, so that the client gets to see why."""

_PROTOCOL = re.compile(r"version=[0-2](:[a-z0-9=-]{1,64})*")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class GitRequest:
    """One of the three requests of the smart protocol (git's http-protocol documentation)."""

    repository: Repository
    action: str
    """info/refs, git-upload-pack or git-receive-pack."""
    service: str
    """git-upload-pack or git-receive-pack."""
    user: str
    push_options_file: str | None = None

    @property
    def pushes(self) -> bool:
        """Whether it belongs to a push."""
        return self.service == "git-receive-pack"


def answer(request: Request, asked: GitRequest, at_end: Callable[[], None]) -> Response:
    """Let git answer. `at_end` is called once when git has ended, before the client sees the end of the answer."""
    process = start_git(
        ["http-backend"], environment=_environment(request, asked), cwd=asked.repository.path, reads_input=True
    )
    exchange = _Exchange(process, at_end)
    try:
        exchange.feed(request)
        status, headers = exchange.read_headers()
    except BaseException:
        exchange.close()
        raise
    return Response(exchange, status=status, headers=headers, direct_passthrough=True)


class _Exchange:
    """The body of the answer, and the end of everything when it was sent or the client has gone."""

    def __init__(self, process: GitProcess, at_end: Callable[[], None]) -> None:
        self._process = process
        self._at_end = at_end
        self._ended = False
        self._feeder: threading.Thread | None = None
        self._timer = threading.Timer(REQUEST_SECONDS, process.time_out)
        self._timer.daemon = True
        self._timer.start()

    def feed(self, request: Request) -> None:
        """Hand the request's body to git, in a thread of its own: git may answer before it has read everything."""
        self._feeder = threading.Thread(target=_feed, args=(request.stream, self._process), daemon=True)
        self._feeder.start()

    def read_headers(self) -> tuple[int, list[tuple[str, str]]]:
        """The status and headers that git wrote; 500 where it wrote none."""
        status, headers = 200, []
        while (line := self._process.stdout.readline(HEADER_LINE_BYTES).decode("latin-1")).strip():
            name, _, value = line.partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        return (status if headers else 500), headers

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._process.stdout.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
            yield chunk
        self._process.wait()
        if self._feeder is not None:
            self._feeder.join(DRAIN_SECONDS)
        self.close()

    def close(self) -> None:
        """End git if it still runs (the client has gone), and do what follows a push."""
        if self._ended:
            return
        self._ended = True
        self._timer.cancel()
        self._process.end(gently=True)
        if self._process.errors or self._process.timed_out:
            log.info("git_said", errors=self._process.errors, timed_out=self._process.timed_out)
        self._at_end()


def _feed(body: IO[bytes], process: GitProcess) -> None:
    sink = process.stdin
    assert sink is not None  # noqa: S101 - started with reads_input
    wanted, passed = True, 0
    try:
        while passed <= OVERRUN * settings().source_max_bytes and (chunk := body.read(CHUNK_BYTES)):
            passed += len(chunk)
            if wanted:
                wanted = _written(sink, chunk)
        _closed(sink)
    except Exception as error:  # noqa: BLE001 - servers differ in how they say that the client has gone
        log.info("push_cut_off", error=type(error).__name__)
        process.kill(signal.SIGTERM)


def _written(sink: IO[bytes], chunk: bytes) -> bool:
    try:
        sink.write(chunk)
        sink.flush()
    except (BrokenPipeError, ValueError):  # git has heard enough, or has ended
        return False
    return True


def _closed(sink: IO[bytes]) -> None:
    try:
        sink.close()
    except BrokenPipeError:
        return


def _environment(request: Request, asked: GitRequest) -> dict[str, str]:
    limit = settings().source_max_bytes
    config = [
        ("core.fsync", "all"),
        ("core.hooksPath", str(hooks_dir())),
        ("gc.auto", "6700"),
        ("http.receivepack", "true" if asked.pushes else "false"),
        ("http.uploadpack", "false" if asked.pushes else "true"),
        ("receive.advertisePushOptions", "true"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.fsckObjects", "true"),
        ("receive.maxInputSize", str(limit)),
        ("receive.unpackLimit", "1"),  # index-pack names the limit where it refuses, unpack-objects does not
        ("transfer.hideRefs", "refs/longshore"),
        ("uploadpack.allowAnySHA1InWant", "true"),
    ]
    extra = {
        "CONTENT_LENGTH": _content_length(request),
        "CONTENT_TYPE": request.content_type or "",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROJECT_ROOT": str(settings().repositories_dir),
        "PATH_INFO": f"/{asked.repository.relative_path}/{asked.action}",
        "QUERY_STRING": f"service={asked.service}" if asked.action == "info/refs" else "",
        "REMOTE_ADDR": request.remote_addr or "",
        "REMOTE_USER": asked.user,
        "REQUEST_METHOD": request.method,
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    if request.headers.get("Content-Encoding") in ("gzip", "x-gzip"):
        extra["HTTP_CONTENT_ENCODING"] = "gzip"
    if _PROTOCOL.fullmatch(request.headers.get("Git-Protocol", "")):
        extra["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
    if asked.push_options_file is not None:
        extra["LONGSHORE_PUSH_OPTIONS"] = asked.push_options_file
    return clean_environment(config, extra=extra)


def _content_length(request: Request) -> str:
    # Chunked: nothing, then git reads to the end.
    return "" if request.content_length is None else str(request.content_length)
