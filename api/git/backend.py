"""Run `git http-backend` (CGI, RFC 3875) for one request: stream both ways, and leave no process behind."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

import structlog
from werkzeug.wrappers import Request, Response

from api.git.connection import CHUNK_BYTES, ClientConnection
from api.git.repositories import HIDDEN_REFS, PACK_MEMORY_CONFIG, Repository, hooks_dir
from api.git.request_body import PushCommands, RequestBody
from api.git.template import DIRECTORY as TEMPLATE_DIRECTORY
from shared.errors import LongshoreError, RequestError
from shared.git.command import GitLimits, clean_environment, start_git
from shared.settings import settings
from shared.settings.serving import MEBIBYTE
from shared.subprocesses import Subprocess

REQUEST_TIMEOUT_SECONDS = 30 * 60
MAX_CPU_SECONDS = 10 * 60
"""Processor time of each process of git: a small pack can claim to unpack to terabytes."""
MAX_REFS = 10_000
"""Maximum of branches and tags of one repository: git reads all of them for every request."""
NICENESS = 5
"""Of git processes that read or write packs, so that short requests are not delayed by them."""
DRAIN_TIMEOUT_SECONDS = 120
"""How long a client may go on sending after git has ended."""
FEEDER_TIMEOUT_SECONDS = 5
MAX_HEADER_LINE_BYTES = 8 * 1024

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
    shows_template: bool = False
    """Whether the client sees the template, because no branch was pushed yet."""

    @property
    def is_push(self) -> bool:
        return self.service == "git-receive-pack"


def respond(
    request: Request, git_request: GitRequest, connection: ClientConnection, on_end: Callable[[], None]
) -> Response:
    """Return git's response. `on_end` is called once when git has ended, before the client has the whole response.

    Raises:
        RequestError: the body is incomplete, too large, damaged or too slow.
        ClientLeftError: the client has left.
    """
    commands = None
    if git_request.action == "git-receive-pack":
        commands = PushCommands(max_new=MAX_REFS - git_request.repository.count_refs().visible)
    body = RequestBody(request, connection, commands)
    process = start_git(
        ["http-backend"],
        environment=_environment(request, git_request),
        cwd=git_request.repository.path,
        timeout=REQUEST_TIMEOUT_SECONDS,
        limits=GitLimits(
            memory_bytes=1024 * MEBIBYTE + 2 * settings().source_max_bytes,
            file_bytes=64 * MEBIBYTE + 2 * settings().source_max_bytes,  # a pack, and what its deltas need
            cpu_seconds=MAX_CPU_SECONDS,
            niceness=0 if git_request.action == "info/refs" else NICENESS,
        ),
        has_input=True,
    )
    exchange = _Exchange(process, body, connection, on_end)
    try:
        exchange.start()
        status, headers = exchange.read_headers()
    except BaseException:
        exchange.close()
        raise
    return Response(exchange, status=status, headers=headers, direct_passthrough=True)


class _Exchange:
    """One request of a client and git's response to it. `close` ends git, whether or not it has responded."""

    def __init__(
        self, process: Subprocess, body: RequestBody, connection: ClientConnection, on_end: Callable[[], None]
    ) -> None:
        self._process = process
        self._body = body
        self._connection = connection
        self._on_end = on_end
        self._body_error: RequestError | None = None
        self._first_chunk = b""
        self._is_closed = False
        self._watched = ExitStack()
        # In a thread of its own: git may respond before it has read the whole request.
        self._feeder = threading.Thread(target=self._feed, name="git-request-body", daemon=True)

    def start(self) -> None:
        self._watched.enter_context(self._connection.watched(self._process.terminate))
        self._feeder.start()

    def read_headers(self) -> tuple[int, list[tuple[str, str]]]:
        """Return the status and headers that git wrote (RFC 3875, section 6.3); 500 where it wrote none.

        Git writes them before it reads the request, so this also waits for the first bytes of its body.

        Raises:
            RequestError, ClientLeftError: see `respond`.
        """
        status, headers = 200, []
        while (line := self._process.stdout.readline(MAX_HEADER_LINE_BYTES).decode("latin-1")).strip():
            name, _, value = line.partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        self._first_chunk = self._read()
        if not self._first_chunk and self._failure is not None:
            raise self._failure
        return (status if headers else 500), headers

    def __iter__(self) -> Iterator[bytes]:
        chunk = self._first_chunk
        while chunk:
            with self._connection.sending():
                yield chunk
            chunk = self._read()
        self._process.wait()
        if self._failure is not None or self._process.timed_out:
            self._connection.abort()
        self._feeder.join(DRAIN_TIMEOUT_SECONDS)
        self.close()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._process.end(gently=True)
        if self._feeder.is_alive():
            self._connection.stop_reading()
            self._feeder.join(FEEDER_TIMEOUT_SECONDS)
        self._watched.close()
        reason = self._failure.message if self._failure else ""
        if reason or self._process.messages or self._process.timed_out:
            log.info("git_ended", reason=reason, errors=self._process.messages, timed_out=self._process.timed_out)
        self._on_end()

    @property
    def _failure(self) -> LongshoreError | None:
        """Why the request cannot be completed."""
        return self._connection.failure or self._body_error

    def _read(self) -> bytes:
        return self._process.stdout.read1(CHUNK_BYTES)  # type: ignore[attr-defined, no-any-return]

    def _feed(self) -> None:
        """Write the body to git while git reads. Git is not told the length: it would loop for missing bytes."""
        try:
            if all(_write(self._process.stdin, chunk) for chunk in self._body.chunks()):
                with suppress(BrokenPipeError, ValueError):
                    self._process.stdin.close()
            else:
                with suppress(RequestError):  # git has read enough
                    self._body.discard()
        except RequestError as error:
            self._body_error = error
            self._process.terminate()


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
        *PACK_MEMORY_CONFIG,
        ("http.receivepack", "true" if git_request.is_push else "false"),
        ("http.uploadpack", "false" if git_request.is_push else "true"),
        ("receive.advertisePushOptions", "true"),
        ("receive.autogc", "false"),  # it would run on, detached; see `api.git.upkeep`
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.fsckObjects", "true"),
        ("receive.maxInputSize", str(settings().source_max_bytes)),
        ("receive.unpackLimit", "1"),  # index-pack names the limit when it fails, unpack-objects does not
        ("transfer.hideRefs", HIDDEN_REFS),
        ("uploadpack.allowAnySHA1InWant", "true"),
    ]
    directory = [TEMPLATE_DIRECTORY] if git_request.shows_template else []
    extra = {
        "CONTENT_LENGTH": "",  # git reads to the end, which comes only after a complete body
        "CONTENT_TYPE": request.content_type or "",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROJECT_ROOT": str(settings().repositories_dir),
        "PATH_INFO": "/".join(("", git_request.repository.relative_path, *directory, git_request.action)),
        "QUERY_STRING": f"service={git_request.service}" if git_request.action == "info/refs" else "",
        "REMOTE_ADDR": request.remote_addr or "",
        "REMOTE_USER": git_request.user,
        "REQUEST_METHOD": request.method,
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    if _PROTOCOL.fullmatch(request.headers.get("Git-Protocol", "")):
        extra["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
    if git_request.push_options_file is not None:
        extra["LONGSHORE_PUSH_OPTIONS"] = git_request.push_options_file
    return clean_environment(config, extra=extra)
