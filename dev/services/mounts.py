"""Unmount what is mounted below a directory, and mount a small file system in memory."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.services.processes import ServiceFailedError, signals_deferred


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points below a directory in this mount namespace, deepest first."""
    top = directory.resolve()
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Field 5 is the mount point; a space in it is written \040 (proc(5)).
        point = Path(line.split(" ")[4].encode().decode("unicode_escape"))
        if point.is_relative_to(top):
            points.append(point)
    return sorted(points, key=lambda point: len(point.parts), reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmount all of them. One that is in use disappears with its last user."""
    for point in mounts_below(directory):
        subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


@contextmanager
def memory_disk(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a small file system at a directory during the block, so that it can be filled.

    Raises:
        ServiceFailedError: mounting is not permitted here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "longshore-services", str(directory)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        raise ServiceFailedError(f"a file system in memory cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        with signals_deferred():
            unmount_below(directory)
