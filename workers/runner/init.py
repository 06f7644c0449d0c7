"""What a container's first process owes: to pass signals on and to reap whatever is orphaned."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGINT)


def leave_pid_one() -> None:
    """Go on as a child process if this is process 1; process 1 itself stays behind, reaps, and ends as the child does.

    So the runner waits for its own children alone, and never takes an exit status that somebody else waits for.
    The caller blocks `FORWARDED` before and unblocks them once its own handlers stand, so that none is lost between.
    """
    if os.getpid() != 1:
        return
    child = os.fork()
    if child == 0:
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
