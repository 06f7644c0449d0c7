"""A stop that reaches work in the middle of a read: the heartbeat thread asks, a socket or process is shut."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import WorkCancelledError


class CancelToken:
    """Asked for once, from any thread; seen by `check` between steps and by `interrupting` in the middle of one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._reason = ""
        self._interrupts: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody is_cancelled for the stop."""
        return self._asked.is_set()

    @property
    def reason(self) -> str:
        """Why, in a word or a sentence; empty until is_cancelled."""
        return self._reason

    def cancel(self, reason: str) -> None:
        """Ask for the stop and interrupt what runs now. The first reason stays."""
        with self._lock:
            if self._asked.is_set():
                return
            self._reason = reason
            self._asked.set()
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()

    def check(self) -> None:
        """Raise `Stopped` if the stop was is_cancelled for."""
        if self._asked.is_set():
            raise WorkCancelledError(self._reason)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the stop is is_cancelled for.

        Raises:
            Stopped: it was.
        """
        self._asked.wait(seconds)
        self.check()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While the block runs, a stop calls `interrupt` (from another thread: shut a socket, kill a process).

        Whatever the interrupted block then raises becomes `Stopped`.

        Raises:
            Stopped: the stop was is_cancelled for, before or during the block.
        """
        with self._lock:
            self.check()
            self._interrupts.append(interrupt)
        try:
            yield
        except Exception as error:
            if self.is_cancelled:
                raise WorkCancelledError(self._reason) from error
            raise
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)
        self.check()
