"""How a worker stops: no more jobs are taken, those that run get their time, then Celery ends.

Celery's own soft shutdown sleeps the whole time with its event loop standing still, though the last job may have
ended in the first second.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery.signals import worker_ready
from celery.worker.state import active_requests, reserved_requests

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 0.1
ENDING_SECONDS = 8
"""For Celery to end its pool; after that the process leaves, and its pool is killed with it (`workers.app`)."""
BEGINNING_SECONDS = 5
"""For a worker that was not ready yet to become so; it has taken no job, and perhaps waits for a Redis in vain."""


class GracefulStop:
    """SIGTERM and SIGINT of a worker's parent process. A second one does not wait."""

    def __init__(
        self, worker: Any, *, seconds: float, when_asked: Callable[[], None], when_stuck: Callable[[], None]
    ) -> None:
        self.is_requested = False
        self._ready = threading.Event()
        self._worker = worker
        self._seconds = seconds
        self._when_asked = when_asked
        self._when_stuck = when_stuck
        self._at_once = threading.Event()
        self._ended = threading.Event()
        worker_ready.connect(self._note_ready, weak=False)

    def ended(self) -> None:
        """Celery has ended."""
        self._ended.set()

    def _note_ready(self, **_sent: object) -> None:
        self._ready.set()

    def take_signals(self) -> None:
        """Take the signals over from Celery, which took them when it started."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing may be raised here: a handler runs anywhere, also where a lock would then stay held for good.
        if self.is_requested:
            self._at_once.set()
            return
        self.is_requested = True
        threading.Thread(target=self._end, name="stopping", daemon=True).start()

    def _end(self) -> None:
        if not self._ready.wait(BEGINNING_SECONDS):
            log.info("stopping before it was ready")
            self._leave()
        self._take_no_more()
        try:
            self._when_asked()
        except Exception:  # whatever it is, it keeps nobody from stopping
            log.warning("jobs were not told of the stop", exc_info=True)
        if active_requests:
            log.info("stopping when the jobs that run have ended", jobs=len(active_requests), seconds=self._seconds)
        deadline = time.monotonic() + self._seconds
        while (active_requests or reserved_requests) and time.monotonic() < deadline:
            if self._at_once.wait(POLL_INTERVAL_SECONDS):
                break
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery's cold shutdown
        if not self._ended.wait(ENDING_SECONDS):
            log.warning("the pool does not end; it is killed with this process")
            self._leave()

    def _take_no_more(self) -> None:
        consumer = self._worker.consumer
        for queue in list(self._worker.app.amqp.queues.consume_from):
            consumer.call_soon(consumer.cancel_task_queue, queue)

    def _leave(self) -> None:
        try:
            self._when_stuck()
        finally:  # a database that is away keeps nobody here: the leases run out
            os._exit(0)
