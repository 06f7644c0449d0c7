"""Mounts left below a directory, which would keep it from being removed."""

import subprocess
from pathlib import Path


def mounts_below(directory: Path) -> list[Path]:
    """The mount points below a directory, deepest first, as this mount namespace sees them."""
    top = directory.resolve()
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Field 5 is the mount point; a space in it is written \040 (proc(5)).
        point = Path(line.split(" ")[4].encode().decode("unicode_escape"))
        if point.is_relative_to(top):
            points.append(point)
    return sorted(points, key=lambda point: len(point.parts), reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmount them all, those in use as well (they then vanish with their last user)."""
    for point in mounts_below(directory):
        subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
