"""Replace this process by a program that gets SIGTERM when its parent ends.

It is run by its path and imports the standard library only. Linux keeps PR_SET_PDEATHSIG (prctl(2)) over exec. On other
systems the program starts without that signal.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run `parent_death.py PARENT_PID PROGRAM ARGUMENT…`."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("its parent has ended already")
    os.execv(command[0], command)  # noqa: S606 - a fixed program, no shell


if __name__ == "__main__":
    main()
