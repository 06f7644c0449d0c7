"""What the reader of the demo sees: headlines, commands, answers, and that something moves while he waits."""

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress

_WIDTH = 96
_INDENT = "   "
_TICK_SECONDS = 0.2
_FIRST_LINE_SECONDS = 1
_LINE_EVERY_SECONDS = 10
"""Without a terminal, where a line cannot be written over, so often is enough."""


class Wait:
    """Something that takes a while; `text` says how far it is."""

    def __init__(self, text: str) -> None:
        self.text = text


class Screen:
    """Standard output, and how long each step took."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self.steps: list[tuple[str, float]] = []
        """Each finished step's headline and seconds."""

    def line(self, text: str = "", *, style: str = "") -> None:
        """One line, over whatever progress stands there."""
        with self._lock:
            self._write(f"{self._styled(_INDENT + text, style)}\n" if text else "\n")

    @contextmanager
    def step(self, headline: str) -> Iterator[None]:
        """A step of the demo; its duration is kept for the end."""
        began = time.monotonic()
        self.headline(f"{len(self.steps) + 1}. {headline}")
        try:
            yield
        except Exception as error:
            self.lines(f"FAILED: {error}", style="31")
            raise
        self.steps.append((headline, time.monotonic() - began))

    def headline(self, text: str) -> None:
        """A line across."""
        with self._lock:
            self._write("\n" + self._styled(f"── {text} ".ljust(_WIDTH, "─"), "1") + "\n")

    def command(self, command: str) -> None:
        """A command, exactly as the shell gets it."""
        self.line()
        self.lines(f"$ {command}", style="36")

    def lines(self, text: str, *, style: str = "") -> None:
        """Several lines, such as an answer."""
        for part in text.splitlines():
            self.line(part, style=style)

    @contextmanager
    def waiting(self, text: str) -> Iterator[Wait]:
        """Show what is waited for and since when, until the block ends. What parts say meanwhile is shown too."""
        wait, over = Wait(text), threading.Event()
        ticker = threading.Thread(target=self._tick, args=(wait, over), daemon=True)
        ticker.start()
        try:
            with redirect_stderr(_Lines(self)):
                yield wait
        finally:
            over.set()
            ticker.join()

    def _tick(self, wait: Wait, over: threading.Event) -> None:
        began = time.monotonic()
        next_line: float = _FIRST_LINE_SECONDS
        while not over.wait(_TICK_SECONDS):
            seconds = time.monotonic() - began
            # One row at most: only that can be written over.
            room = min(_WIDTH, shutil.get_terminal_size().columns) - len(_INDENT) - len("…  (1000 s)") - 1
            shown = f"{_INDENT}… {wait.text[: max(room, 0)]} ({seconds:.0f} s)"
            if self._terminal:
                with self._lock:
                    self._write(self._styled(shown, "2"))
            elif seconds >= next_line:
                next_line += _LINE_EVERY_SECONDS
                with self._lock:
                    self._write(f"{shown}\n")
        with self._lock:
            self._write("")

    def _write(self, text: str) -> None:
        # Back to the beginning of the line and away with the progress that stands there (ECMA-48: CR, EL).
        with suppress(BrokenPipeError):  # nobody reads any more; what was started must be stopped all the same
            sys.stdout.write(f"\r\x1b[K{text}" if self._terminal else text)
            sys.stdout.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if style and self._terminal else text


class _Lines(io.TextIOBase):
    """Hands what is written to it to the screen, line by line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.line(line)
        return len(text)
