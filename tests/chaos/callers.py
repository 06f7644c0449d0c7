"""Callers: each takes calls one by one, and sends each until it is accepted, with its idempotency key."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.chaos.api import Answer
from tests.chaos.plan import Call, CallKind
from tests.chaos.stage import Stage

CALLERS = 4
IMPATIENCE_SECONDS = 0.03
RETRY_INTERVAL_SECONDS = 0.5
PATIENCE_SECONDS = 120
"""A call that is not accepted for so long is reported."""


@dataclass
class Outcome:
    """What became of one call."""

    call: Call
    job_ids: set[str] = field(default_factory=set)
    """More than one would be work done twice."""
    sent: int = 0
    accepted: bool = False
    complaint: str | None = None
    """An answer that no caller should get."""


class Callers:
    """Threads that work on the calls they are given."""

    def __init__(self, stage: Stage) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: Counter[str] = Counter()
        """Answers other than an acceptance, and their absence."""
        self._stage = stage
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._given = 0
        self._threads = [threading.Thread(target=self._work, name=f"caller-{n}", daemon=True) for n in range(CALLERS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def give(self, calls: list[Call]) -> None:
        """Have these calls made."""
        self._given += len(calls)
        for call in calls:
            self._calls.put(call)

    @property
    def open(self) -> int:
        """How many calls have no outcome yet."""
        return self._given - len(self.outcomes)

    @property
    def accepted(self) -> int:
        """How many calls were accepted."""
        return sum(outcome.accepted for outcome in list(self.outcomes))

    def stop(self) -> None:
        """Make no more calls."""
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
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._stopping.is_set():
            answer = self._send(outcome)
            outcome.sent += 1
            if answer.job_id is not None:
                outcome.job_ids.add(answer.job_id)
            if answer.accepted:
                outcome.accepted = True
                return
            with self._lock:
                self.errors[str(answer.status or "no answer")] += 1
            if answer.status and answer.status not in (429, 503):
                outcome.complaint = f"{outcome.call.kind} was answered {answer.status}: {answer.text}"
                if answer.status < 500:
                    return
            if time.monotonic() > deadline:
                outcome.complaint = f"{outcome.call.kind} was not accepted for {PATIENCE_SECONDS} s: {answer.text}"
                return
            self._stopping.wait(answer.retry_after or RETRY_INTERVAL_SECONDS)

    def _send(self, outcome: Outcome) -> Answer:
        path, body = self._stage.request(outcome.call)
        hangs_up = outcome.call.impatient and outcome.sent == 0
        patience = {"seconds": IMPATIENCE_SECONDS} if hangs_up else {}
        return self._stage.caller.send("POST", path, body, idempotency_key=outcome.call.key, **patience)

    def _cancel(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        while not self._stopping.is_set():
            answer = self._stage.caller.send("DELETE", f"/v1/jobs/{job_id}")
            if answer.status in (204, 409):  # cancelled, or ended before
                return
            if answer.status not in (0, 429, 503):
                outcome.complaint = f"cancelling was answered {answer.status}: {answer.text}"
                return
            self._stopping.wait(answer.retry_after or RETRY_INTERVAL_SECONDS)


@contextmanager
def callers(stage: Stage) -> Iterator[Callers]:
    """Callers for the length of the block."""
    working = Callers(stage)
    working.start()
    try:
        yield working
    finally:
        working.stop()
