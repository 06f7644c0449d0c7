"""Keep the errors that algorithms return for calls, for their owners to read.

The call does not wait for the database: a thread of this process writes what has come together, once a second at most.
Each owner has a place of its own, so that a stream of errors displaces no other owner's.
"""

import threading
from collections import deque

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.invocation.runner_client import ERROR_PREFIX, TIMEOUT_ERROR, RunnerResponse, read_object
from api.invocation.target import Target
from api.schemas.calls import DEFAULT_TIMEOUT_SECONDS
from shared.db.engine import database
from shared.invocation.call_errors import ReturnedError, record_errors, shorten

log = structlog.get_logger(__name__)

MAX_UNWRITTEN_PER_OWNER = 100
MAX_PARSED_BYTES = 256 * 1024
"""A larger response is kept as its beginning, unparsed."""
WRITE_INTERVAL_SECONDS = 1.0


class CallErrors:
    """The errors of this process that are not written yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwritten: dict[str, deque[ReturnedError]] = {}
        self._has_unwritten = threading.Event()
        self._writer: threading.Thread | None = None

    def keep(self, target: Target, response: RunnerResponse, *, timeout: float) -> None:
        """Keep the error in a response, if it is one, and if it is the algorithm's and not the caller's.

        `timeout` is the caller's: exceeding one that is shorter than usual is no error of the algorithm.
        """
        if not response.body.startswith(ERROR_PREFIX):
            return
        text = _describe(response.body, timeout)
        if text is None:
            return
        version = target.version.semantic_version or target.version.git_hash[:12]
        error = ReturnedError(
            target.algorithm.owner, target.algorithm.id, target.version.id, shorten(f"{version}: {text}")
        )
        with self._lock:
            self._unwritten.setdefault(error.owner, deque(maxlen=MAX_UNWRITTEN_PER_OWNER)).append(error)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_forever, name="call errors", daemon=True)
                self._writer.start()
        self._has_unwritten.set()

    def write(self) -> None:
        """Write what is kept. Errors that the database does not take are dropped, and that is logged."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        for owner, errors in unwritten.items():
            try:
                with database().writing() as session:
                    record_errors(session, list(errors))
            except SQLAlchemyError as error:
                log.warning("call_errors_not_written", owner=owner, errors=len(errors), error=type(error).__name__)

    def _write_forever(self) -> None:
        pause = threading.Event()
        while True:
            self._has_unwritten.wait()
            self._has_unwritten.clear()
            try:
                self.write()
            except Exception as error:
                log.exception("call_errors_not_written", error=type(error).__name__)
            pause.wait(WRITE_INTERVAL_SECONDS)


call_errors = CallErrors()


def _describe(body: bytes, timeout: float) -> str | None:
    if len(body) > MAX_PARSED_BYTES:
        return body[:MAX_PARSED_BYTES].decode("utf-8", "replace")
    error = read_object(body).get("error")
    if not isinstance(error, dict):
        return None
    kind, message = error.get("error_type"), str(error.get("message", ""))
    if kind == TIMEOUT_ERROR and timeout < DEFAULT_TIMEOUT_SECONDS:
        return None
    trace = error.get("stacktrace") or error.get("stack_trace")
    # The development kit sends null as the type of the client's AlgorithmException.
    said = f"{kind}: {message}" if kind else message
    return f"{said}\n{trace}" if isinstance(trace, str) and trace else said
