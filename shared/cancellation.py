"""Cancellation and deadlines that end work in the middle of a read: another thread shuts its socket or process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from shared.errors import ErrorClass, WorkCancelledError, WorkError


class CancelToken:
    """Cancelled once, from any thread. Work sees it by `check` between steps and by `on_cancel` within one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self.reason = ""
        """A word or a sentence; empty until cancelled."""
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, reason: str) -> None:
        """Cancel the work and call the callbacks of `on_cancel`. A second call does nothing."""
        with self._lock:
            if self.is_cancelled:
                return
            self.reason = reason
            self._cancelled.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise `WorkCancelledError` if cancelled."""
        if self.is_cancelled:
            raise WorkCancelledError(self.reason)

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
                raise WorkCancelledError(self.reason) from error
            raise
        finally:
            with self._lock:
                self._callbacks.remove(callback)
        self.check()


class Deadline:
    """The moment at which a build has used up its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._ends_at - time.monotonic())

    def check(self) -> None:
        """Raise if the deadline has passed.

        Raises:
            WorkError: it has (invalid: the same source would take as long again).

        """
        if self.left == 0.0:
            raise WorkError(
                ErrorClass.INVALID,
                f"the build took longer than its limit of {self._seconds:g} seconds and was ended",
            )


@contextmanager
def call_after(seconds: float | None, callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` from another thread if the block takes longer than `seconds`; None: never."""
    timer = threading.Timer(seconds or 0, callback)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Watchdog:
    """Calls `callback` from a thread of its own if one of many steps takes longer than `seconds` (at most twice that).

    A context manager. The thread costs less than one timer for each step.
    """

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self._seconds = seconds
        self._callback = callback
        self._step_began_at: float | None = None
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._has_ended.set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one step."""
        self._step_began_at = time.monotonic()
        try:
            yield
        finally:
            self._step_began_at = None

    def _run(self) -> None:
        while not self._has_ended.wait(self._seconds):
            began_at = self._step_began_at
            if began_at is not None and time.monotonic() - began_at >= self._seconds:
                self._callback()
                return


def ends_within(seconds: float, work: Callable[[], object], *, name: str) -> bool:
    """Do `work` in a thread of this name, and raise what it raises. Return False if it takes longer than `seconds`.

    For name resolution, which has no timeout of its own.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return False
    if errors:
        raise errors[0]
    return True
