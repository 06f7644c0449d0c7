"""Serving a WSGI application with gunicorn: threads in forked workers, logs through ours, no files left about."""

import contextlib
import json
import logging
import socket
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

from api.error_codes import Code
from shared.db.engine import database
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

STALL_SECONDS = 60
"""A worker whose main thread does not turn for this long is replaced; requests run in other threads."""


KEPT_SECONDS = 75
"""How long an idle connection is kept: longer than the gateway does, so that it never sends into one that closes."""

MARGIN_SECONDS = 5
"""For what a process does when its requests have ended, before it is killed."""


class QuietLogger(Logger):
    """Gunicorn's messages, handed to the root logger like everybody's; requests are logged by gateway and API."""

    def setup(self, cfg: Any) -> None:
        """Take no handlers of gunicorn's own."""
        self.cfg = cfg
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log no request."""


class JsonThreadWorker(ThreadWorker):
    """A worker whose answer to a request that it cannot read has the contract's shape, not gunicorn's page."""

    asked_to_stop_at: float | None = None
    """On the monotonic clock."""

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """Note when the stop was asked for: all that still runs has the same seconds from then on."""
        self.asked_to_stop_at = self.asked_to_stop_at or time.monotonic()
        super().handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read, or that failed outside of the application."""
        unreadable = isinstance(exc, ParseException)
        if not unreadable:
            self.log.exception("a request failed outside of the application")
        status, reason, code = (
            (400, "Bad Request", Code.INVALID_REQUEST) if unreadable else (500, "Internal Server Error", Code.INTERNAL)
        )
        message = "This is no HTTP request that can be read." if unreadable else "Something went wrong here."
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

    def load_config(self) -> None:
        """Gunicorn's settings, from ours; its command line and its configuration files are not read."""
        common = {
            "worker_class": JsonThreadWorker,
            "timeout": STALL_SECONDS,
            "graceful_timeout": self._configured.shutdown_seconds,
            "keepalive": KEPT_SECONDS,
            "post_fork": _after_fork,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
        }
        for name, value in {**common, **self._options}.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application."""
        return self._load()


def serve(
    configured: Settings,
    load: Callable[[], Any],
    *,
    port: int,
    processes: int,
    threads: int,
    preload: bool,
    before_leaving: Callable[[float], None] | None = None,
) -> None:
    """Serve a WSGI application until SIGTERM or SIGINT, then let what runs end for `shutdown_seconds`.

    `preload`: import it once, before the fork; not for one that starts threads. `before_leaving` is called in each
    process when its requests have ended, with the seconds that are left for what runs beside them.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    host = f"[{configured.host}]" if ":" in configured.host else configured.host
    _refuse_taken(configured.host, port)
    options: dict[str, Any] = {
        "bind": f"{host}:{port}",
        "workers": processes,
        "threads": threads,
        "preload_app": preload,
    }
    if before_leaving is not None:
        options |= _with_leave(configured.shutdown_seconds, before_leaving)
    log.info("listening", address=f"http://{host}:{port}")
    Server(configured, load, options).run()


def _refuse_taken(host: str, port: int) -> None:
    # Gunicorn would try again for a while and then leave with a traceback.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _after_fork(_arbiter: Any, _worker: Any) -> None:
    database().forget_connections()


def _with_leave(seconds: int, before_leaving: Callable[[float], None]) -> Mapping[str, Any]:
    """Gunicorn's settings that let a process do something between its last request and its end."""

    def after_fork(arbiter: Any, worker: Any) -> None:
        _after_fork(arbiter, worker)
        worker.cfg.set("graceful_timeout", seconds)  # the worker's own; the parent's patience is longer

    def leave(_arbiter: Any, worker: Any) -> None:
        asked_at = getattr(worker, "asked_to_stop_at", None)
        before_leaving(0.0 if asked_at is None else max(0.0, asked_at + seconds - time.monotonic()))

    return {"graceful_timeout": seconds + MARGIN_SECONDS, "post_fork": after_fork, "worker_exit": leave}
