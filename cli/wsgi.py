"""Serve a WSGI application with gunicorn: threads in forked workers, logs through structlog, no files."""

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker
from typing_extensions import override

from api.errors import Code
from cli.ports import check_free
from shared.db.engine import database
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

STALL_TIMEOUT_SECONDS = 60
"""A worker whose main thread blocks for this long is replaced. Requests run in other threads."""
KEEPALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than the gateway does, so that it never uses one that is being closed."""
MAX_DISCARDED_BYTES = 64 * 1024**2
DISCARD_TIMEOUT_SECONDS = 10.0
"""Limits of what is read of a body that the application did not want, so that its sender gets the response.

Few bodies need it: the gateway forwards none that is too large for the API, and none slowly.
"""
EXIT_MARGIN_SECONDS = 5
"""For a process to run `on_shutdown` after its requests, before it is killed."""


class QuietLogger(Logger):
    """Passes gunicorn's messages to the root logger. Requests are logged by the gateway and the API."""

    @override
    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")

    @override
    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log nothing."""


class JsonThreadWorker(ThreadWorker):
    """A worker whose own errors, such as invalid HTTP, have the shape of the API's errors."""

    stop_requested_at: float | None = None
    """Seconds of the monotonic clock; the deadline of everything that still runs counts from here."""

    @override
    def handle_exit(self, sig: Any, frame: Any) -> None:
        self.stop_requested_at = self.stop_requested_at or time.monotonic()
        super().handle_exit(sig, frame)

    @override
    def handle_request(self, req: Any, conn: Any) -> bool:
        """Respond, and read what the application left of the body before gunicorn looks at the connection again.

        Gunicorn reads 64 KiB of it. A sender in the middle of more would be reset, and fail to write before it has
        read the response (RFC 9112, section 9.6).
        """
        keeps_connection = super().handle_request(req, conn)
        deadline = time.monotonic() + DISCARD_TIMEOUT_SECONDS
        return conn.parser.finish_body(deadline=deadline, max_bytes=MAX_DISCARDED_BYTES) and keeps_connection

    @override
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, ParseException):
            status, reason, code = 400, "Bad Request", Code.INVALID_REQUEST
            message = "This is not a valid HTTP request."
        else:
            self.log.error("request_failed_outside_application", exc_info=exc)
            status, reason, code = 500, "Internal Server Error", Code.INTERNAL
            message = "An internal error; the log of the service has its cause."
        body = json.dumps({"error": {"id": uuid.uuid4().hex, "code": int(code), "message": message}})
        head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        with contextlib.suppress(OSError):
            write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


class Server(BaseApplication):
    """One WSGI application on one port."""

    def __init__(self, configured: Settings, load: Callable[[], Any], options: Mapping[str, Any]) -> None:
        self._configured = configured
        self._load = load
        self._options = options
        super().__init__()

    @override
    def load_config(self) -> None:
        """Set gunicorn's settings. Its command line and configuration files are not read."""
        common = {
            "worker_class": JsonThreadWorker,
            "timeout": STALL_TIMEOUT_SECONDS,
            "graceful_timeout": self._configured.shutdown_seconds,
            "keepalive": KEEPALIVE_SECONDS,
            "post_fork": _after_fork,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
        }
        for name, value in {**common, **self._options}.items():
            self.cfg.set(name, value)

    @override
    def load(self) -> Any:
        return self._load()


def serve(
    configured: Settings,
    load: Callable[[], Any],
    *,
    port: int,
    processes: int,
    threads: int,
    preload: bool,
    on_shutdown: Callable[[float], None] | None = None,
) -> None:
    """Serve a WSGI application until SIGTERM or SIGINT; then its requests have `shutdown_seconds` to end.

    With `preload` it is created once, before the fork, which is wrong for one that starts threads. `on_shutdown` is
    called in each process when its requests have ended, with the remaining seconds for other work in progress.

    Raises:
        SettingsError: it cannot listen on the address.
    """
    host = f"[{configured.host}]" if ":" in configured.host else configured.host
    try:
        check_free(configured.host, port)  # gunicorn would retry for a while and then end with a traceback
    except OSError as error:
        raise SettingsError(f"cannot listen on {configured.host}:{port}: {error.strerror}") from None
    options: dict[str, Any] = {
        "bind": f"{host}:{port}",
        "workers": processes,
        "threads": threads,
        "preload_app": preload,
    }
    if on_shutdown is not None:
        options |= _shutdown_options(configured.shutdown_seconds, on_shutdown)
    log.info("listening", address=f"http://{host}:{port}")
    Server(configured, load, options).run()


def _after_fork(_arbiter: Any, _worker: Any) -> None:
    database().forget_connections()


def _shutdown_options(seconds: int, on_shutdown: Callable[[float], None]) -> Mapping[str, Any]:
    """Return gunicorn's settings with which a process calls `on_shutdown` between its last request and its end."""

    def after_fork(arbiter: Any, worker: Any) -> None:
        _after_fork(arbiter, worker)
        worker.cfg.set("graceful_timeout", seconds)  # in the worker; the parent waits longer

    def at_exit(_arbiter: Any, worker: Any) -> None:
        requested_at = getattr(worker, "stop_requested_at", None)
        on_shutdown(0.0 if requested_at is None else max(0.0, requested_at + seconds - time.monotonic()))

    return {"graceful_timeout": seconds + EXIT_MARGIN_SECONDS, "post_fork": after_fork, "worker_exit": at_exit}
