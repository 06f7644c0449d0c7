"""Print the disk space in bytes and the number of files of user `argv[1]`, with deleted files that are still open.

Runs as root, so that the user can neither stop it nor write to its output. Follows no link. Prints `-1 -1` if a file of
the user cannot be examined, for example because its path is too long.
"""

from __future__ import annotations

import os
import stat
import sys

_BLOCK_BYTES = 512  # of st_blocks, on every file system
_user = int(sys.argv[1])


def size_of_tree(top: str) -> tuple[int, int]:
    """Return bytes and number of the user's files and directories below `top`, on other than virtual file systems."""
    size = count = 0
    directories = [(top, 0)]
    while directories:
        directory, owner = directories.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.path in {"/proc", "/sys", "/dev"}:
                        continue
                    status = os.lstat(entry.path)
                    is_directory = stat.S_ISDIR(status.st_mode)
                    if is_directory:
                        directories.append((entry.path, status.st_uid))
                    if status.st_uid == _user:
                        count += 1
                        size += status.st_blocks * _BLOCK_BYTES // (1 if is_directory else max(1, status.st_nlink))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it has just been removed
        except PermissionError:
            if owner == _user:
                raise
    return size, count


def size_of_deleted() -> int:
    """Return the bytes of deleted files that processes have open."""
    found = {}
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            paths = [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]
        except FileNotFoundError:
            continue  # the process has ended
        for path in paths:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK_BYTES
    return sum(found.values())


try:
    used, files = size_of_tree("/")
    print(used + size_of_deleted(), files)
except OSError:
    print(-1, -1)
