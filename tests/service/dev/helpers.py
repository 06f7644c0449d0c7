"""Look at processes from outside."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.processes import has_ended


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether it becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_naming(text: str) -> list[int]:
    """Ids of the processes with this text in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            named = text.encode() in (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if named and not has_ended(pid):
            found.append(pid)
    return found
