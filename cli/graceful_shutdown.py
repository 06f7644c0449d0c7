"""Stop a worker gracefully: take no more jobs, give those in progress some time, then end Celery.

Celery's own soft shutdown blocks its event loop and always waits for the whole time, even if the last job ends in the
first second.
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
POOL_END_TIMEOUT_SECONDS = 8
"""For Celery to end its pool. After that the process exits, and its pool is killed with it (`workers.app`)."""
READY_TIMEOUT_SECONDS = 5
"""For a worker that is still starting to become ready. It has no job, and may wait for a Redis that is unreachable."""


class GracefulStop:
    """Handles SIGTERM and SIGINT in the parent process of a worker. A second signal ends the wait for jobs.

    `on_request` is called when a stop is requested, `on_timeout` before the process exits without Celery's own end.
    """

    def __init__(
        self, worker: Any, *, seconds: float, on_request: Callable[[], None], on_timeout: Callable[[], None]
    ) -> None:
        self.is_requested = False
        self._ready = threading.Event()
        self._worker = worker
        self._seconds = seconds
        self._on_request = on_request
        self._on_timeout = on_timeout
        self._skips_wait = threading.Event()
        self._ended = threading.Event()
        worker_ready.connect(self._note_ready, weak=False)

    def note_ended(self) -> None:
        """Note that Celery has ended."""
        self._ended.set()

    def _note_ready(self, **_arguments: object) -> None:
        self._ready.set()

    def take_signals(self) -> None:
        """Replace the signal handlers that Celery installed when it started."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing may be raised here: a handler runs at any place in the code, where a lock could then stay held.
        if self.is_requested:
            self._skips_wait.set()
            return
        self.is_requested = True
        threading.Thread(target=self._end, name="graceful-stop", daemon=True).start()

    def _end(self) -> None:
        if not self._ready.wait(READY_TIMEOUT_SECONDS):
            log.info("worker_stopped_before_ready")
            self._exit()
        self._cancel_consumers()
        try:
            self._on_request()
        except Exception:  # it must not prevent the stop
            log.warning("stop_callback_failed", exc_info=True)
        if active_requests:
            log.info("waiting_for_jobs", jobs=len(active_requests), max_seconds=self._seconds)
        deadline = time.monotonic() + self._seconds
        while (active_requests or reserved_requests) and time.monotonic() < deadline:
            if self._skips_wait.wait(POLL_INTERVAL_SECONDS):
                break
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery's cold shutdown
        if not self._ended.wait(POOL_END_TIMEOUT_SECONDS):
            log.warning("pool_did_not_end")
            self._exit()

    def _cancel_consumers(self) -> None:
        consumer = self._worker.consumer
        for queue in list(self._worker.app.amqp.queues.consume_from):
            consumer.call_soon(consumer.cancel_task_queue, queue)

    def _exit(self) -> None:
        try:
            self._on_timeout()
        finally:  # also if the database is unreachable: the leases expire
            os._exit(0)
