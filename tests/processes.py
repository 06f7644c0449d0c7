"""Look at processes that may end at any moment, even between two looks."""

import time
from pathlib import Path


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or is only an entry that its parent has not collected yet."""
    stat = _stat(Path(f"/proc/{pid}"))
    return stat is None or stat[0] == "Z"


def command_of(pid: int) -> str:
    """Return the command line of a process, with spaces between its words; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def survivors_of_group(group: int, seconds: float = 10) -> list[Path]:
    """Return the directories in /proc of the processes of a group that have not ended within so many seconds.

    A process that was killed can still be seen for a moment: the kernel ends it later than `kill` returns.
    """
    deadline = time.monotonic() + seconds
    while (found := _living_in_group(group)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _living_in_group(group: int) -> list[Path]:
    stats = {directory: _stat(directory) for directory in Path("/proc").glob("[0-9]*")}
    return [directory for directory, stat in stats.items() if stat and stat[0] != "Z" and int(stat[2]) == group]


def _stat(directory: Path) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name: state, parent, group, … (proc(5))."""
    try:
        return (directory / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
