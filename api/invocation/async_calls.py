"""Make calls with `output=void`, whose callers do not wait: each at most once, in a thread of this process."""

import threading
import time
from contextlib import ExitStack

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.invocation.call import call
from api.invocation.call_chain import CallChain
from api.invocation.push_wait import push_waits
from api.invocation.runner_client import NO_RESULT, RunnerRequest, RunnerResponse, read_object
from api.invocation.target import AwaitedPush, NoImageError, Target
from api.owner_slots import push_wait_slots
from shared.db.engine import database
from shared.db.models import CallState
from shared.errors import RequestError, UnavailableError
from shared.invocation.async_calls import LOST, CallOutcome, end_call, record_call
from shared.keys import Caller
from shared.settings import settings

log = structlog.get_logger(__name__)

LOST_MARGIN_SECONDS = 30.0
"""Time after a call's timeout, for its response to arrive and its outcome to be recorded, before it counts as lost."""
RETRY_SECONDS = 5
MAX_DURATION_SECONDS = 1_000_000
"""Longer than any call can take: an algorithm's container can report anything, and the column is limited."""


class AsyncCalls:
    """The calls in progress in this process that no caller waits for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_progress = 0
        self._ids: set[str] = set()

    def start(
        self,
        caller: Caller,
        target: Target | AwaitedPush,
        request: RunnerRequest,
        chain: CallChain,
        *,
        timeout: float,
        request_id: str,
    ) -> str:
        """Record the call, start it, and return the id of its record.

        Raises:
            LimitReachedError: the owner of the key has as many calls in progress, or waiting for pushes, as it may.
            UnavailableError: this process has as many of them as it may.
        """
        slot = ExitStack()  # held until the call has ended
        slot.enter_context(chain.slot())
        waiting = slot.enter_context(ExitStack())  # held until its image was pushed
        try:
            if isinstance(target, AwaitedPush):
                waiting.enter_context(chain.slot(push_wait_slots()))
            self._count()
        except BaseException:
            slot.close()
            raise
        try:
            with database().writing() as session:
                call_id = record_call(
                    session,
                    caller=caller.owner,
                    algorithm=target.algorithm,
                    version=target.version,
                    max_seconds=timeout + LOST_MARGIN_SECONDS,
                )
            self._ids.add(call_id)
            threading.Thread(
                target=self._run,
                args=(call_id, caller, target, request, chain.detached(), timeout, request_id, slot, waiting),
                name="async call",
                daemon=True,
            ).start()
        except BaseException:
            self._release(None, slot)
            raise
        return call_id

    def _count(self) -> None:
        with self._changed:
            if self._in_progress >= settings().calls_threads:
                raise UnavailableError(
                    f"{self._in_progress} calls with output=void are in progress here already; "
                    "send the call again in a moment.",
                    retry_after=RETRY_SECONDS,
                )
            self._in_progress += 1

    def wait_until_idle(self, timeout: float) -> list[str]:
        """Wait until all calls have ended, for at most `timeout` seconds. Return the ids of those that have not."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_progress == 0, timeout)
            return sorted(self._ids)

    def _run(
        self,
        call_id: str,
        caller: Caller,
        target: Target | AwaitedPush,
        request: RunnerRequest,
        chain: CallChain,
        timeout: float,
        request_id: str,
        slot: ExitStack,
        waiting: ExitStack,
    ) -> None:
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            outcome = _outcome_of(caller, target, request, chain, timeout, request_id, waiting)
            with database().writing() as session:
                end_call(session, call_id, outcome)
        except SQLAlchemyError as error:
            # The call will count as lost.
            log.error("async_call_not_recorded", call_id=call_id, error=type(error).__name__)
        finally:
            self._release(call_id, slot)

    def _release(self, call_id: str | None, slot: ExitStack) -> None:
        slot.close()
        with self._changed:
            self._in_progress -= 1
            if call_id is not None:
                self._ids.discard(call_id)
            self._changed.notify_all()


async_calls = AsyncCalls()


def await_async_calls(timeout: float) -> None:
    """Wait for the calls of this process, for at most `timeout` seconds, and record the others as lost."""
    began_at = time.monotonic()
    lost = async_calls.wait_until_idle(timeout)
    for call_id in lost:
        with database().writing() as session:
            end_call(session, call_id, CallOutcome(CallState.LOST, LOST))
    if lost:
        log.warning("async_calls_interrupted", calls=len(lost), waited_s=round(time.monotonic() - began_at, 1))


def _outcome_of(
    caller: Caller,
    target: Target | AwaitedPush,
    request: RunnerRequest,
    chain: CallChain,
    timeout: float,
    request_id: str,
    waiting: ExitStack,
) -> CallOutcome:
    deadline = time.monotonic() + timeout
    try:
        with waiting:
            ready = (
                push_waits.wait(target, deadline, chain.require_wanted) if isinstance(target, AwaitedPush) else target
            )
        return _read_outcome(call(ready, request, chain, timeout=timeout, deadline=deadline, request_id=request_id))
    except NoImageError as error:
        return CallOutcome(CallState.FAILED, error.told_to(caller).message)
    except RequestError as error:
        return CallOutcome(CallState.FAILED, error.message)
    except SQLAlchemyError:
        raise
    except Exception as error:
        log.exception("async_call_failed", error=type(error).__name__)
        return CallOutcome(CallState.FAILED, "Something went wrong here; the log has it.")


def _read_outcome(response: RunnerResponse) -> CallOutcome:
    value = read_object(response.body)
    metadata, error = value.get("metadata"), value.get("error")
    seconds = metadata.get("duration") if isinstance(metadata, dict) else None
    duration_ms = None
    if isinstance(seconds, int | float) and 0 <= seconds < MAX_DURATION_SECONDS:
        duration_ms = round(1000 * seconds)
    if isinstance(error, dict):
        return CallOutcome(
            CallState.FAILED, str(error.get("message", "")), str(error.get("error_type", "")), duration_ms
        )
    if "result" not in value:
        return CallOutcome(CallState.FAILED, NO_RESULT, duration_ms=duration_ms)
    return CallOutcome(CallState.SUCCEEDED, duration_ms=duration_ms)
