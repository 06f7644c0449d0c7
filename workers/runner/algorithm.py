"""Run the algorithm: one call at a time, in a process that is restarted when it has ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from typing import ContextManager, Mapping  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

from .hints import import_hint
from .messages import LOADING_ERROR, TIMEOUT_ERROR, CallFailure, CallResponse, error_body, parse_result
from .process import AlgorithmProcess, Call
from .settings import algorithm_environment

END_GRACE_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL when the runner stops."""

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")


class StoppingError(Exception):
    """Raised for a call that comes while the runner stops."""


class AlgorithmRunner:
    """Starts the process, gives it one call at a time, and restarts it after a call that ended it.

    A process that ends while loading is not restarted: it would fail in the same way. Every call then returns the
    cause.
    """

    def __init__(self, module: str, directory: str, environment: Mapping[str, str], *mode: str) -> None:
        """Name the module in `src` of the source's directory. `mode` is `boot.py`'s: nothing, or "check"."""
        self._script = os.path.join(directory, "src", module + ".py")
        self._directory = directory
        self._mode = mode
        self._environment = algorithm_environment(environment)
        self._call_changed = threading.Condition()
        self._has_call = False
        self._stopping = False
        self._process_lock = threading.Lock()
        self._process: AlgorithmProcess | None = None
        self._start_failure: CallFailure | None = None

    def start(self) -> None:
        """Start the process; if that is impossible, calls return the cause."""
        with self._process_lock:
            self._start_failure = self._process = None
            if self._stopping:
                return
            if not os.path.isfile(self._script):
                self._start_failure = CallFailure(self._missing_script_message(), LOADING_ERROR)
                return
            try:
                self._process = AlgorithmProcess(
                    [sys.executable, BOOT, self._script], self._directory, self._environment, *self._mode
                )
            except OSError as error:
                self._start_failure = CallFailure(
                    f"The algorithm's process could not be started: {error}. The image needs a writable /tmp.",
                    LOADING_ERROR,
                )

    @property
    def ready(self) -> bool:
        """Whether a call would not wait for the algorithm to load; also true if loading has failed."""
        process = self._process
        return process is None or process.loaded or process.ended

    def wait_until_loaded(self, seconds: float) -> bool:
        """Wait until it has loaded or cannot; return False if that took longer."""
        process = self._process
        return process is None or process.wait_until_loaded(time.monotonic() + seconds)

    def load_failure(self) -> CallFailure | None:
        """Return why the algorithm did not load; None while it loads and after it has loaded."""
        process = self._process
        if process is None:
            return self._start_failure
        return _load_failure(process, self._directory) if process.ended and not process.loaded else None

    def call(self, request: bytes, timeout: float, under_way: ContextManager[object] | None = None) -> CallResponse:
        """Call the algorithm with the kit's line of JSON. `timeout` is in seconds and includes waiting for other calls.

        `under_way` is entered while the algorithm works on the call.

        Raises:
            StoppingError: the runner is stopping.
        """
        deadline = time.monotonic() + timeout
        with self._call_changed:
            in_time = self._call_changed.wait_for(lambda: self._stopping or not self._has_call, timeout)
            if self._stopping:
                raise StoppingError
            if not in_time:
                return _timeout_response(
                    f"Earlier calls were still running when its timeout of {timeout:g} seconds was over."
                )
            self._has_call = True
        try:
            return self._call_exclusively(request, timeout, deadline, under_way or nullcontext())
        finally:
            with self._call_changed:
                self._has_call = False
                self._call_changed.notify()

    def stop(self) -> None:
        """Reject calls that have not begun; a running call continues."""
        with self._call_changed:
            self._stopping = True
            self._call_changed.notify_all()
        if not self.ready:
            self.end()

    def end(self) -> None:
        """End the process, and with it a call that still runs; after `stop`."""
        with self._process_lock:
            if self._process is not None:
                self._process.end(END_GRACE_SECONDS)

    def _call_exclusively(
        self,
        request: bytes,
        timeout: float,
        deadline: float,
        under_way: ContextManager[object],
        *,
        may_retry: bool = True,
    ) -> CallResponse:
        if self._process is None:
            self.start()
        elif self._process.loaded and self._process.ended:
            self._restart("between two calls")
        process = self._process
        if process is not None and not process.wait_until_loaded(deadline):
            return _timeout_response(
                f"The algorithm was still loading when the timeout of {timeout:g} seconds was over."
            )
        if self._stopping and (process is None or process.ended):
            raise StoppingError
        failure = self.load_failure()
        if failure is not None or process is None:
            return (failure or CallFailure("The algorithm was not started.", LOADING_ERROR)).response()
        started_at = time.monotonic()
        with under_way:
            call = process.call(request, deadline)
        if may_retry and process.ended and not (call.delivered or call.timed_out):
            # The process had ended before the call, and its end was noticed only now: the call has not begun.
            return self._call_exclusively(request, timeout, deadline, under_way, may_retry=False)
        response = CallResponse(
            _response_body(call, process, timeout), duration=time.monotonic() - started_at, stdout=call.stdout.text()
        )
        if call.result is None:
            self._restart("during a call")
        return response

    def _restart(self, when: str) -> None:
        if self._process is not None and not self._stopping:
            print(
                f"longshore: the algorithm's process {_end_reason(self._process)} {when}; it is restarted",
                file=sys.stderr,
                flush=True,
            )
        self.start()

    def _missing_script_message(self) -> str:
        source = os.path.dirname(self._script)
        message = f"The source has no src/{os.path.basename(self._script)}, which is the algorithm's module."
        if not os.path.isdir(source):
            return f"{message} There is no src directory."
        scripts = sorted(name for name in os.listdir(source) if name.endswith(".py"))
        return f"{message} In src there is: {', '.join(scripts[:20]) or 'no Python file'}."


def _response_body(call: Call, process: AlgorithmProcess, timeout: float) -> dict[str, object]:
    if call.result is not None:
        return parse_result(call.result)
    if call.timed_out:
        return error_body(
            f"The algorithm did not answer within the timeout of {timeout:g} seconds; its process was killed.",
            TIMEOUT_ERROR,
            process.errors,
        )
    return error_body(f"The algorithm's process {_end_reason(process)} during the call.", stacktrace=process.errors)


def _load_failure(process: AlgorithmProcess, directory: str) -> CallFailure:
    errors = process.errors
    lines = [line for line in errors.splitlines() if line.strip()]
    status = process.exit_status or 0
    if process.load_error is not None:
        reported = parse_result(process.load_error).get("error", {})
        return CallFailure(reported.get("message", ""), LOADING_ERROR, reported.get("stacktrace", "") or errors)
    if status == 0:
        message = "The algorithm's process ended while it was loading, without an error."
    elif status > 0 and lines:
        message = lines[-1].strip()
        hint = import_hint(message, directory)
        message = f"{message.rstrip('.')}. {hint}" if hint else message
    else:
        message = f"The algorithm's process {_end_reason(process)} while it was loading."
    return CallFailure(message, LOADING_ERROR, errors)


def _end_reason(process: AlgorithmProcess) -> str:
    status = process.exit_status or 0
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by signal {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _timeout_response(message: str) -> CallResponse:
    return CallResponse(error_body(message, TIMEOUT_ERROR))
