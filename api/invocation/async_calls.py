"""`output=void`: calls whose callers do not wait, each made at most once, in a thread of this process."""

import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.invocation.call import call, read_object
from api.invocation.runner_client import RUNNER_FAILED, RunnerRequest, RunnerResponse
from api.invocation.target import Target
from shared.db.engine import database
from shared.db.models import CallState
from shared.errors import RequestError, UnavailableError
from shared.invocation.async_calls import LOST, Ending, end_call, record_call
from shared.keys import Caller
from shared.settings import settings

log = structlog.get_logger(__name__)

MARGIN_SECONDS = 30.0
"""Beyond a call's timeout, for its answer to come and its end to be written, before it counts as lost."""
FULL_RETRY_SECONDS = 5
MAX_DURATION_SECONDS = 1_000_000
"""More than any call may take: an algorithm's container can say anything, and the database takes only so much."""


class AsyncCalls:
    """The calls of this process that nobody waits for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._running: set[str] = set()

    def begin(self, caller: Caller, found: Target, sent: RunnerRequest, *, timeout: float, request_id: str) -> str:
        """Write the call down and begin it; the id under which one can ask how it ended.

        Raises:
            UnavailableError: this process runs as many calls as it may.
        """
        with self._changed:
            if self._under_way >= settings().calls_threads:
                raise UnavailableError(
                    f"{self._under_way} calls with output=void are under way here already; call again in a moment.",
                    retry_after=FULL_RETRY_SECONDS,
                )
            self._under_way += 1
        try:
            with database().writing() as session:
                call_id = record_call(
                    session,
                    caller=caller.owner,
                    algorithm=found.algorithm,
                    version=found.version,
                    seconds=timeout + MARGIN_SECONDS,
                )
            self._running.add(call_id)
            threading.Thread(
                target=self._make, args=(call_id, found, sent, timeout, request_id), name="void call", daemon=True
            ).start()
        except BaseException:
            self._leave(None)
            raise
        return call_id

    def wait_for_none(self, seconds: float) -> list[str]:
        """Wait until all have ended, for so many seconds at most; the ids of those that have not."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, seconds)
            return sorted(self._running)

    def _make(self, call_id: str, found: Target, sent: RunnerRequest, timeout: float, request_id: str) -> None:
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            _write_end(call_id, found, sent, timeout, request_id)
        except SQLAlchemyError as error:
            log.error("the end of a call was not written; it will count as lost", error=type(error).__name__)
        finally:
            self._leave(call_id)

    def _leave(self, call_id: str | None) -> None:
        with self._changed:
            self._under_way -= 1
            if call_id is not None:
                self._running.discard(call_id)
            self._changed.notify_all()


async_calls = AsyncCalls()
"""Those of this process; it has none before the fork."""


def await_async_calls(seconds: float) -> None:
    """Let the calls of this process end within so many seconds; those that do not are written as lost."""
    began = time.monotonic()
    left = async_calls.wait_for_none(seconds)
    for call_id in left:
        with database().writing() as session:
            end_call(session, call_id, Ending(CallState.LOST, LOST))
    if left:
        log.warning("calls with output=void were cut off", calls=len(left), waited=round(time.monotonic() - began, 1))


def _write_end(call_id: str, found: Target, sent: RunnerRequest, timeout: float, request_id: str) -> None:
    try:
        ending = _ending_of(call(found, sent, timeout=timeout, request_id=request_id))
    except RequestError as refusal:
        ending = Ending(CallState.FAILED, refusal.message)
    except SQLAlchemyError:
        raise
    except Exception as error:
        log.exception("a call failed", error=type(error).__name__)
        ending = Ending(CallState.FAILED, "Something went wrong here; the log has it.")
    with database().writing() as session:
        end_call(session, call_id, ending)


def _ending_of(answered: RunnerResponse) -> Ending:
    said = read_object(answered.body)
    metadata, error = said.get("metadata"), said.get("error")
    seconds = metadata.get("duration") if isinstance(metadata, dict) else None
    known = isinstance(seconds, int | float) and 0 <= seconds < MAX_DURATION_SECONDS
    duration_ms = round(1000 * seconds) if known and seconds is not None else None
    if isinstance(error, dict):
        message, error_type = str(error.get("message", "")), str(error.get("error_type", ""))
        return Ending(CallState.FAILED, message, error_type, duration_ms)
    if "result" not in said:
        return Ending(CallState.FAILED, RUNNER_FAILED, duration_ms=duration_ms)
    return Ending(CallState.SUCCEEDED, duration_ms=duration_ms)
