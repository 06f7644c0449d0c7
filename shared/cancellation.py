"""Cancellation that reaches work in the middle of a read: another thread cancels, and a socket or process is shut."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import WorkCancelledError


class CancelToken:
    """Cancelled once, from any thread. Work sees it by `check` between steps and by `on_cancel` within one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._reason = ""
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def reason(self) -> str:
        """A word or a sentence; empty until cancelled."""
        return self._reason

    def cancel(self, reason: str) -> None:
        """Cancel the work and call the callbacks of `on_cancel`. A second call does nothing."""
        with self._lock:
            if self.is_cancelled:
                return
            self._reason = reason
            self._cancelled.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise `WorkCancelledError` if cancelled."""
        if self.is_cancelled:
            raise WorkCancelledError(self._reason)

    def sleep(self, seconds: float) -> None:
        """Sleep until the time is over or the work is cancelled.

        Raises:
            WorkCancelledError: the work is cancelled.
        """
        self._cancelled.wait(seconds)
        self.check()

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` if cancelled while the block runs. It runs in another thread: shut a socket, kill a process.

        Raises:
            WorkCancelledError: cancelled before or during the block, whatever the block itself raised.
        """
        with self._lock:
            self.check()
            self._callbacks.append(callback)
        try:
            yield
        except Exception as error:
            if self.is_cancelled:
                raise WorkCancelledError(self._reason) from error
            raise
        finally:
            with self._lock:
                self._callbacks.remove(callback)
        self.check()
