"""Callers: each takes calls one by one and sends a call, with its idempotency key, until it is accepted."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.chaos.api import Response
from tests.chaos.plan import Call, CallKind
from tests.chaos.scenario import Scenario

CALLERS = 4
HANG_UP_SECONDS = 0.03
RETRY_INTERVAL_SECONDS = 0.5
NOT_NOW = (0, 429, 502, 503)
"""Statuses after which a caller sends the request again; 502: the gateway saw an API process end in mid-request."""
ACCEPT_TIMEOUT_SECONDS = 120
"""A call that is not accepted within this time is a violation."""


@dataclass
class Outcome:
    """The outcome of one call."""

    call: Call
    job_ids: set[str] = field(default_factory=set)
    """More than one means that work was done twice."""
    sent: int = 0
    accepted: bool = False
    violation: str | None = None
    """A response that no caller should get."""


class Callers:
    """Threads that send the calls of a queue."""

    def __init__(self, scenario: Scenario) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: Counter[str] = Counter()
        """The number of each response that is not an acceptance, and of missing responses."""
        self._scenario = scenario
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._submitted = 0
        self._threads = [threading.Thread(target=self._work, name=f"caller-{n}", daemon=True) for n in range(CALLERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, calls: list[Call]) -> None:
        """Queue calls."""
        self._submitted += len(calls)
        for call in calls:
            self._calls.put(call)

    @property
    def open(self) -> int:
        """The number of calls without an outcome."""
        return self._submitted - len(self.outcomes)

    @property
    def accepted(self) -> int:
        """The number of accepted calls."""
        return sum(outcome.accepted for outcome in list(self.outcomes))

    def stop(self) -> None:
        """Stop the threads; queued calls are not sent."""
        self._stopping.set()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and not self._stopping.is_set():
            outcome = Outcome(call)
            self._stopping.wait(call.pause)
            self._send_until_accepted(outcome)
            if call.kind == CallKind.PUSH_AND_CANCEL and outcome.accepted:
                self._stopping.wait(call.pause)
                self._cancel(outcome)
            with self._lock:
                self.outcomes.append(outcome)

    def _send_until_accepted(self, outcome: Outcome) -> None:
        deadline = time.monotonic() + ACCEPT_TIMEOUT_SECONDS
        while not self._stopping.is_set():
            response = self._send(outcome)
            outcome.sent += 1
            if response.job_id is not None:
                outcome.job_ids.add(response.job_id)
            if response.accepted:
                outcome.accepted = True
                return
            with self._lock:
                self.errors[str(response.status or "no answer")] += 1
            if response.status not in NOT_NOW:
                outcome.violation = f"{outcome.call.kind} got response {response.status}: {response.text}"
                if response.status < 500:
                    return
            if time.monotonic() > deadline:
                outcome.violation = (
                    f"{outcome.call.kind} was not accepted for {ACCEPT_TIMEOUT_SECONDS} s: {response.text}"
                )
                return
            self._stopping.wait(response.retry_after or RETRY_INTERVAL_SECONDS)

    def _send(self, outcome: Outcome) -> Response:
        path, body = self._scenario.request(outcome.call)
        hangs_up = outcome.call.impatient and outcome.sent == 0
        timeout = {"seconds": HANG_UP_SECONDS} if hangs_up else {}
        return self._scenario.caller.send("POST", path, body, idempotency_key=outcome.call.key, **timeout)

    def _cancel(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        while not self._stopping.is_set():
            response = self._scenario.caller.send("DELETE", f"/v1/jobs/{job_id}")
            if response.status in (204, 409):  # cancelled, or ended before
                return
            if response.status not in NOT_NOW:
                outcome.violation = f"cancelling got response {response.status}: {response.text}"
                return
            self._stopping.wait(response.retry_after or RETRY_INTERVAL_SECONDS)


@contextmanager
def callers(scenario: Scenario) -> Iterator[Callers]:
    """Run callers during the block."""
    running = Callers(scenario)
    running.start()
    try:
        yield running
    finally:
        running.stop()
