"""Leaving the demo running: it goes on as a process without a terminal, while the command that began it returns."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_GOES_ON = b"+"


def returning_early(work: Callable[[Callable[[Path], None]], int]) -> int:
    """Do `work` in a process of its own; return its status when it ends, or 0 as soon as it wants to go on alone.

    `work` is given a function that it calls when it wants to go on: with the file in which what it prints from then on
    belongs. That function waits for SIGTERM, which unwinds it as it does everything here.
    """
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        os.setsid()  # Ctrl-C is for the process that waits, which hands it on
        os._exit(_status_of(lambda: work(lambda log: _go_on(writer, log))))
    os.close(writer)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os.kill(worker, signal.SIGTERM))
    if os.read(reader, 1) == _GOES_ON:
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def _status_of(work: Callable[[], int]) -> int:
    try:
        status = work()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def _go_on(writer: int, log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.write(writer, _GOES_ON)
    os.close(writer)
    while True:
        signal.pause()  # what ends it raises
