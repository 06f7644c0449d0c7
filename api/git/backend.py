"""Run `git http-backend` (CGI, RFC 3875) for one request: stream both ways, hold little, leave no process behind."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import structlog
from werkzeug.wrappers import Request, Response

from api.git.repositories import Repository, hooks_dir
from shared.git.command import clean_environment, start_git
from shared.settings import settings
from shared.subprocesses import Subprocess

CHUNK_BYTES = 64 * 1024
REQUEST_TIMEOUT_SECONDS = 30 * 60
DRAIN_TIMEOUT_SECONDS = 120
"""How long a client may go on sending after git has ended."""
MAX_HEADER_LINE_BYTES = 8 * 1024
MAX_REJECTED_PUSH_FACTOR = 4
"""The body of a push that git has rejected is read up to this multiple of the limit, so that the client sees why."""

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
    def is_push(self) -> bool:
        return self.service == "git-receive-pack"


def respond(request: Request, git_request: GitRequest, on_end: Callable[[], None]) -> Response:
    """Return git's response. `on_end` is called once when git has ended, before the client has the whole response."""
    process = start_git(
        ["http-backend"],
        environment=_environment(request, git_request),
        cwd=git_request.repository.path,
        timeout=REQUEST_TIMEOUT_SECONDS,
        has_input=True,
    )
    body = _ResponseBody(process, request.stream, on_end)
    try:
        body.start()
        status, headers = body.read_headers()
    except BaseException:
        body.close()
        raise
    return Response(body, status=status, headers=headers, direct_passthrough=True)


class _ResponseBody:
    """The body of git's response. Closing it ends git, also when the client has disconnected."""

    def __init__(self, process: Subprocess, request_body: IO[bytes], on_end: Callable[[], None]) -> None:
        self._process = process
        self._on_end = on_end
        self._is_closed = False
        # In a thread of its own: git may respond before it has read the whole request.
        self._feeder = threading.Thread(target=_feed, args=(request_body, process), daemon=True)

    def start(self) -> None:
        self._feeder.start()

    def read_headers(self) -> tuple[int, list[tuple[str, str]]]:
        """Return the status and headers that git wrote (RFC 3875, section 6.3); 500 where it wrote none."""
        status, headers = 200, []
        while (line := self._process.stdout.readline(MAX_HEADER_LINE_BYTES).decode("latin-1")).strip():
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
        self._feeder.join(DRAIN_TIMEOUT_SECONDS)
        self.close()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._process.end(gently=True)
        if self._process.messages or self._process.timed_out:
            log.info("git_ended", errors=self._process.messages, timed_out=self._process.timed_out)
        self._on_end()


def _feed(body: IO[bytes], process: Subprocess) -> None:
    is_read, size = True, 0
    try:
        while size <= MAX_REJECTED_PUSH_FACTOR * settings().source_max_bytes and (chunk := body.read(CHUNK_BYTES)):
            size += len(chunk)
            is_read = is_read and _write(process.stdin, chunk)
        with suppress(BrokenPipeError):
            process.stdin.close()
    except Exception as error:  # noqa: BLE001 - servers raise different errors when the client has disconnected
        log.info("push_interrupted", error=type(error).__name__)
        process.kill(signal.SIGTERM)


def _write(sink: IO[bytes], chunk: bytes) -> bool:
    """Write a chunk of the request, and return whether git still reads."""
    try:
        sink.write(chunk)
        sink.flush()
    except (BrokenPipeError, ValueError):  # git has read enough, or has ended
        return False
    return True


def _environment(request: Request, git_request: GitRequest) -> dict[str, str]:
    config = [
        ("core.fsync", "all"),
        ("core.hooksPath", str(hooks_dir())),
        ("gc.auto", "6700"),
        ("http.receivepack", "true" if git_request.is_push else "false"),
        ("http.uploadpack", "false" if git_request.is_push else "true"),
        ("receive.advertisePushOptions", "true"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.fsckObjects", "true"),
        ("receive.maxInputSize", str(settings().source_max_bytes)),
        ("receive.unpackLimit", "1"),  # index-pack names the limit when it fails, unpack-objects does not
        ("transfer.hideRefs", "refs/longshore"),
        ("uploadpack.allowAnySHA1InWant", "true"),
    ]
    extra = {
        # Empty for a chunked body: git reads to its end.
        "CONTENT_LENGTH": "" if request.content_length is None else str(request.content_length),
        "CONTENT_TYPE": request.content_type or "",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROJECT_ROOT": str(settings().repositories_dir),
        "PATH_INFO": f"/{git_request.repository.relative_path}/{git_request.action}",
        "QUERY_STRING": f"service={git_request.service}" if git_request.action == "info/refs" else "",
        "REMOTE_ADDR": request.remote_addr or "",
        "REMOTE_USER": git_request.user,
        "REQUEST_METHOD": request.method,
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    if request.headers.get("Content-Encoding") in ("gzip", "x-gzip"):
        extra["HTTP_CONTENT_ENCODING"] = "gzip"
    if _PROTOCOL.fullmatch(request.headers.get("Git-Protocol", "")):
        extra["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
    if git_request.push_options_file is not None:
        extra["LONGSHORE_PUSH_OPTIONS"] = git_request.push_options_file
    return clean_environment(config, extra=extra)
