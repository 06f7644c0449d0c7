"""Serve a WSGI application with gunicorn: threads in forked workers, logs through structlog, no files."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from typing_extensions import override

from cli.incoming_request import BodyLimits
from cli.ports import check_free
from cli.wsgi_worker import JsonThreadWorker
from shared.db.engine import database
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

STALL_TIMEOUT_SECONDS = 60
"""A worker whose main thread blocks for this long is replaced. Requests run in other threads."""
KEEPALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than the gateway does, so that it never uses one that is being closed."""
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
    max_body_bytes: int | None = None,
    on_shutdown: Callable[[float], None] | None = None,
) -> None:
    """Serve a WSGI application until SIGTERM or SIGINT; then its requests have `shutdown_seconds` to end.

    With `preload` it is created once, before the fork, which is wrong for one that starts threads. With
    `max_body_bytes` bodies are read whole before a thread is taken, else the thread streams them. `on_shutdown` is
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
    limits = None if max_body_bytes is None else _body_limits(configured, max_body_bytes)

    def after_fork(_arbiter: Any, worker: JsonThreadWorker) -> None:
        database().forget_connections()
        worker.body_limits = limits
        if on_shutdown is not None:
            worker.cfg.set("graceful_timeout", configured.shutdown_seconds)  # in the worker; the parent waits longer

    options["post_fork"] = after_fork
    if on_shutdown is not None:
        options |= _shutdown_options(configured.shutdown_seconds, on_shutdown)
    log.info("listening", address=f"http://{host}:{port}")
    Server(configured, load, options).run()


def _body_limits(configured: Settings, max_bytes: int) -> BodyLimits:
    return BodyLimits(
        max_bytes,
        configured.body_timeout_seconds,
        configured.client_grace_seconds,
        configured.client_min_bytes_per_second,
    )


def _shutdown_options(seconds: int, on_shutdown: Callable[[float], None]) -> Mapping[str, Any]:
    """Return gunicorn's settings with which a process calls `on_shutdown` between its last request and its end."""

    def at_exit(_arbiter: Any, worker: Any) -> None:
        requested_at = getattr(worker, "stop_requested_at", None)
        on_shutdown(0.0 if requested_at is None else max(0.0, requested_at + seconds - time.monotonic()))

    return {"graceful_timeout": seconds + EXIT_MARGIN_SECONDS, "worker_exit": at_exit}
