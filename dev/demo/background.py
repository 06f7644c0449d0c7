"""Leave the demo running as a process without a terminal, while the command that started it returns."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_DETACHED = b"+"


def run_detachable(work: Callable[[Callable[[Path], None]], int]) -> int:
    """Run `work` in a child process; return its status when it ends, or 0 as soon as it detaches itself.

    `work` gets a function `detach`, whose argument is the file for its output from then on. That function waits for
    SIGTERM, which raises there.
    """
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        os.setsid()  # Ctrl-C reaches the waiting process, which forwards it
        os._exit(_status_of(lambda: work(lambda log: _detach(writer, log))))
    os.close(writer)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os.kill(worker, signal.SIGTERM))
    if os.read(reader, 1) == _DETACHED:
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


def _detach(writer: int, log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.write(writer, _DETACHED)
    os.close(writer)
    while True:
        signal.pause()  # the signal that ends it raises
