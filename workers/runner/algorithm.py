"""The algorithm as its callers see it: one call at a time, over as many lives of its process as it takes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Mapping  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

from .process import AlgorithmProcess, Call
from .responses import LOADING_ERROR, TIMEOUT_ERROR, CallFailure, CallResponse, body_from, error
from .settings import algorithm_environment

END_GRACE = 3.0
"""Seconds that the process has to end when the runner does."""

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")


class StoppingError(Exception):
    """The runner is about to end and takes no further call."""


class Algorithm:
    """Starts the process, gives it one call at a time, and starts it anew after a call that it did not survive.

    A process that dies while loading is not started again: it would fail the same way, and every call says how.
    """

    def __init__(self, name: str, directory: str, environment: Mapping[str, str]) -> None:
        self._script = os.path.join(directory, "src", name + ".py")
        self._directory = directory
        self._environment = algorithm_environment(environment)
        self._turn = threading.Condition()
        self._busy = False
        self._stopping = False
        self._lives = threading.Lock()
        self._process: AlgorithmProcess | None = None
        self._unstarted: CallFailure | None = None

    def start(self) -> None:
        """Start the process; a reason why it cannot is kept, for whoever calls."""
        with self._lives:
            self._unstarted = self._process = None
            if self._stopping:
                return
            if not os.path.isfile(self._script):
                self._unstarted = CallFailure(self._no_script(), LOADING_ERROR)
                return
            try:
                self._process = AlgorithmProcess(
                    [sys.executable, BOOT, self._script], self._directory, self._environment
                )
            except OSError as problem:
                message = f"The algorithm's process could not be started: {problem}. The image needs a writable /tmp."
                self._unstarted = CallFailure(message, LOADING_ERROR)

    @property
    def ready(self) -> bool:
        """Whether a call is answered without waiting for the algorithm to load, be it with the error of loading."""
        process = self._process
        return process is None or process.loaded or process.over

    def load_failure(self) -> CallFailure | None:
        """Why the algorithm did not load; None while it loads and once it has."""
        process = self._process
        if process is None:
            return self._unstarted
        if process.loaded or not process.over:
            return None
        return _failure_of_load(process)

    def call(self, request: bytes, timeout: float) -> CallResponse:
        """Answer one call, given as the kit's line of JSON, within `timeout` seconds, its wait for its turn included.

        Raises:
            Stopping: the runner is about to end.
        """
        deadline = time.monotonic() + timeout
        if not self._take_turn(deadline):
            return _too_late(f"Earlier calls were still running when its timeout of {timeout:g} seconds was over.")
        try:
            return self._call_in_turn(request, timeout, deadline)
        finally:
            with self._turn:
                self._busy = False
                self._turn.notify()

    def stop(self) -> None:
        """Refuse whatever has not begun; a call that the algorithm works on goes on."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        if not self.ready:
            self.end()

    def end(self) -> None:
        """End the process, and with it a call that still runs; after `stop`."""
        with self._lives:
            if self._process is not None:
                self._process.end(END_GRACE)

    def _take_turn(self, deadline: float) -> bool:
        with self._turn:
            in_time = self._turn.wait_for(
                lambda: self._stopping or not self._busy, max(0.0, deadline - time.monotonic())
            )
            if self._stopping:
                raise StoppingError
            self._busy = self._busy or in_time
            return in_time

    def _call_in_turn(self, request: bytes, timeout: float, deadline: float) -> CallResponse:
        if self._process is None:
            self.start()
        elif self._process.loaded and self._process.over:
            self._start_anew("between two calls")
        process = self._process
        if process is not None and not process.wait_until_loaded(deadline):
            return _too_late(f"The algorithm was still loading when the timeout of {timeout:g} seconds was over.")
        if self._stopping and (process is None or process.over):
            raise StoppingError
        failure = self.load_failure()
        if failure is not None or process is None:
            return (failure or CallFailure("The algorithm was not started.", LOADING_ERROR)).answer()
        began = time.monotonic()
        call = process.call(request, deadline)
        answer = CallResponse(
            _body_of(call, process, timeout), duration=time.monotonic() - began, printed=call.printed.text()
        )
        if call.answer is None:
            self._start_anew("during a call")
        return answer

    def _start_anew(self, when: str) -> None:
        if self._process is not None and not self._stopping:
            print(
                f"longshore: the algorithm's process {_end_of(self._process)} {when}; it is started anew",
                file=sys.stderr,
                flush=True,
            )
        self.start()

    def _no_script(self) -> str:
        source = os.path.dirname(self._script)
        wanted = f"The source has no src/{os.path.basename(self._script)}, which is where the algorithm begins."
        if not os.path.isdir(source):
            return f"{wanted} There is no src directory at all."
        found = sorted(name for name in os.listdir(source) if name.endswith(".py"))
        return f"{wanted} In src there is: {', '.join(found[:20]) or 'no Python file'}."


def _body_of(call: Call, process: AlgorithmProcess, timeout: float) -> dict[str, object]:
    if call.answer is not None:
        return body_from(call.answer)
    if not call.in_time:
        message = f"The algorithm did not answer within the timeout of {timeout:g} seconds; its process was killed."
        return error(message, TIMEOUT_ERROR, process.errors)
    return error(f"The algorithm's process {_end_of(process)} during the call.", stacktrace=process.errors)


def _failure_of_load(process: AlgorithmProcess) -> CallFailure:
    errors = process.errors
    lines = [line for line in errors.splitlines() if line.strip()]
    status = process.exit_status or 0
    if status == 0:
        message = (
            "The algorithm's source ended without starting the development kit. "
            "It must end with ADK(apply).init(), where ADK comes from `from Algorithmia import ADK`."
        )
    elif status > 0 and lines:
        message = lines[-1].strip()
    else:
        message = f"The algorithm's process {_end_of(process)} while it was loading."
    return CallFailure(message, LOADING_ERROR, errors)


def _end_of(process: AlgorithmProcess) -> str:
    status = process.exit_status or 0
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by signal {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _too_late(message: str) -> CallResponse:
    return CallResponse(error(message, TIMEOUT_ERROR))
