"""Print the demo: headlines, commands, responses, and progress while something is awaited."""

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress

from typing_extensions import override

_WIDTH = 96
_INDENT = "   "
_TICK_INTERVAL_SECONDS = 0.2
_FIRST_LINE_SECONDS = 1
_LINE_INTERVAL_SECONDS = 10
"""Interval of progress lines without a terminal, where a line cannot be overwritten."""


class Wait:
    """Something that takes a while; `text` is its progress."""

    def __init__(self, text: str) -> None:
        self.text = text


class Screen:
    """Standard output, and the duration of each step."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self.steps: list[tuple[str, float]] = []
        """Headline and duration in seconds of each finished step."""

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print one line, over the progress line if there is one."""
        with self._lock:
            self._write(f"{self._styled(_INDENT + text, style)}\n" if text else "\n")

    @contextmanager
    def step(self, headline: str) -> Iterator[None]:
        """Print the headline of a step, and record the step's duration."""
        started_at = time.monotonic()
        self.headline(f"{len(self.steps) + 1}. {headline}")
        try:
            yield
        except Exception as error:
            self.lines(f"FAILED: {error}", style="31")
            raise
        self.steps.append((headline, time.monotonic() - started_at))

    def headline(self, text: str) -> None:
        with self._lock:
            self._write("\n" + self._styled(f"── {text} ".ljust(_WIDTH, "─"), "1") + "\n")

    def command(self, command: str) -> None:
        """Print a command exactly as the shell gets it."""
        self.line()
        self.lines(f"$ {command}", style="36")

    def lines(self, text: str, *, style: str = "") -> None:
        for line in text.splitlines():
            self.line(line, style=style)

    @contextmanager
    def waiting(self, text: str) -> Iterator[Wait]:
        """Show what is awaited, and for how long, until the block ends. Lines on standard error are shown too."""
        wait, ended = Wait(text), threading.Event()
        ticker = threading.Thread(target=self._tick, args=(wait, ended), daemon=True)
        ticker.start()
        try:
            with redirect_stderr(_Lines(self)):
                yield wait
        finally:
            ended.set()
            ticker.join()

    def _tick(self, wait: Wait, ended: threading.Event) -> None:
        started_at = time.monotonic()
        next_line: float = _FIRST_LINE_SECONDS
        while not ended.wait(_TICK_INTERVAL_SECONDS):
            seconds = time.monotonic() - started_at
            # One row at most: only that can be overwritten.
            width = min(_WIDTH, shutil.get_terminal_size().columns) - len(_INDENT) - len("…  (1000 s)") - 1
            line = f"{_INDENT}… {wait.text[: max(width, 0)]} ({seconds:.0f} s)"
            if self._terminal:
                with self._lock:
                    self._write(self._styled(line, "2"))
            elif seconds >= next_line:
                next_line += _LINE_INTERVAL_SECONDS
                with self._lock:
                    self._write(f"{line}\n")
        with self._lock:
            self._write("")

    def _write(self, text: str) -> None:
        # Carriage return, then erase the progress line (ECMA-48: CR, EL).
        with suppress(BrokenPipeError):  # the reader is gone; the services must be stopped all the same
            sys.stdout.write(f"\r\x1b[K{text}" if self._terminal else text)
            sys.stdout.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if style and self._terminal else text


class _Lines(io.TextIOBase):
    """A text stream whose lines are printed on the screen."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rest = ""

    @override
    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.line(line)
        return len(text)
