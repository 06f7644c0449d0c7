"""Logging of every process: structlog and the standard library's loggers in one stream, as JSON or for a terminal.

Callers bind `request_id` and `job_id` with `structlog.contextvars`. Secrets are masked by the name of their field, and
by their form in messages of libraries.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.plain_text import plain_line, plain_text
from shared.settings import Settings

MASK = "(masked)"
_SECRET_NAMES = re.compile(
    r"passw(or)?d|passwd|authorization|registry_auth|auth_config|credential|token|secret|api_?key", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
"""User and password in a URL (RFC 3986, section 3.2.1)."""
_AUTHORIZATION = re.compile(r"\b(Simple|Basic|Bearer)\s+[\w+/=.~-]{8,}")
_API_KEY = re.compile(r"\bsim[A-Za-z0-9]{25,}")
_SEVERAL_LINES = ("exception", "stack")
"""Fields of structlog that hold tracebacks."""
_SILENT = ("sqlalchemy", "alembic", "asyncio")
"""Libraries whose lower levels are of no use to operators, or log SQL statements with their parameters."""
_CHATTY = ("gunicorn", "celery.beat", "celery.worker.strategy", "celery.app.trace")
"""Libraries that log every few seconds that all is well; shown at debug level only."""


def configure_logs(configured: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Configure the logs of this process by the settings; `stream` is standard error by default.

    Called once at the start of a process. Forked children inherit it.
    """
    stream = stream or sys.stderr
    readable = configured.log_format == "console" or (configured.log_format == "auto" and stream.isatty())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
        _named(process, shown=not readable),
        # Not one of the pretty formatters: they print local variables, which may hold secrets.
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Processor = structlog.processors.JSONRenderer(default=str)
    if readable:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(configured.log_level.upper())
    for name in _SILENT if configured.log_level == "debug" else _SILENT + _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask values whose field is named like a secret, and texts that look like one (a structlog processor).

    `plain_text` is applied to all texts, so that untrusted text neither controls a terminal nor begins another entry.
    """
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if name.startswith("_"):  # structlog's own
        return value
    if value and not isinstance(value, bool) and _SECRET_NAMES.search(name):
        return MASK
    if isinstance(value, str):
        plain = plain_text(value) if name in _SEVERAL_LINES else plain_line(value)
        plain = _AUTHORIZATION.sub(rf"\1 {MASK}", _USERINFO.sub(f"{MASK}@", plain))
        return _API_KEY.sub(MASK, plain)
    if isinstance(value, Mapping):
        return {plain_line(str(key)): _masked(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", part) for part in value]
    return value


def _named(process: str, *, shown: bool) -> Processor:
    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if shown:
            event.setdefault("process", process)
        return event

    return add_process
