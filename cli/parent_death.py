"""Becomes a program that ends when its parent does. Run by its path, with nothing but the standard library.

Linux keeps the wish (PR_SET_PDEATHSIG, prctl(2)) over exec. Elsewhere the program simply starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """`parent_death.py PARENT_PID PROGRAM ARGUMENT…`."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("its parent is gone already")
    os.execv(command[0], command)  # noqa: S606 - a fixed program, no shell


if __name__ == "__main__":
    main()
